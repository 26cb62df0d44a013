"""`dgx-music db check`: checks the rows of the database and the audio files that they refer to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from export_service.formats.codecs import EXTENSIONS
from export_service.library.filesystem import compute_sha256
from export_service.library.regular_files import iter_day_folders
from export_service.library.store import OUTPUTS
from storage_service.db.database import Database
from storage_service.maintenance.backup import snapshot
from storage_service.maintenance.integrity import (
    CompletedFile,
    Finding,
    find_existing_ids,
    find_violations,
    is_completed,
    iter_completed_files,
)

FILES_PER_QUERY = 500


def find_problems(database: Database, data_dir: Path, *, read_files: bool) -> Iterator[Finding]:
    """Yields all problems in the database, and with the files if the library is on this machine.

    With `read_files`, each file is read completely and compared with the SHA-256 recorded when it was written.
    """
    with snapshot(database) as moment:
        is_damaged = False
        for finding in find_violations(moment):
            is_damaged |= finding.where == "database"
            yield finding
        if is_damaged or not (data_dir / OUTPUTS).is_dir():
            return
        yield from _check_files(moment, database, data_dir, read_files)
    yield from _find_orphan_files(database, data_dir)


def _check_files(moment: Database, database: Database, data_dir: Path, read_files: bool) -> Iterator[Finding]:
    for file in iter_completed_files(moment):
        problem = _find_problem(file, data_dir, read_files)
        if problem is not None and is_completed(database, file):
            yield Finding(f"generation {file.generation_id}", problem)


def _find_problem(file: CompletedFile, data_dir: Path, read_files: bool) -> str | None:
    if file.path is None:
        return None  # Already reported as a problem of the row.
    path = (data_dir / file.path).resolve()
    if not path.is_relative_to(data_dir.resolve()):
        return f"its file {file.path} is outside the data directory"
    try:
        size_bytes = path.stat().st_size
        if file.size_bytes is not None and size_bytes != file.size_bytes:
            return f"its file {file.path} has {size_bytes} bytes, not {file.size_bytes}"
        if read_files and file.sha256 is not None and compute_sha256(path) != file.sha256:
            return f"its file {file.path} has changed since it was written"
    except FileNotFoundError:
        return f"its file {file.path} is missing"
    except OSError as error:
        return f"failed to read its file {file.path}: {error.strerror}"
    return None


def _find_orphan_files(database: Database, data_dir: Path) -> Iterator[Finding]:
    """Yields the files that no row refers to."""
    days = iter_day_folders(data_dir / OUTPUTS)
    files = (file for day in days for file in day.iterdir() if file.suffix in EXTENSIONS)
    while some := list(islice(files, FILES_PER_QUERY)):
        known = find_existing_ids(database, [file.stem for file in some])
        for file in some:
            if file.stem not in known and file.exists():
                yield Finding(f"file {file.relative_to(data_dir).as_posix()}", "belongs to no generation")
