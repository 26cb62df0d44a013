"""`dgx-music db check`: the rows of the database, and the audio files that they speak of."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from export_service.formats.codecs import EXTENSIONS
from export_service.library.filesystem import sha256_of
from export_service.library.store import DAYS, OUTPUTS
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

FILES_AT_ONCE = 500


def findings(database: Database, data_dir: Path, *, read_files: bool) -> Iterator[Finding]:
    """All that is wrong: in the database; and with the files, where the library is on this machine.

    `read_files`: each file is read whole, and held against the SHA-256 that was noted when it landed.
    """
    with snapshot(database) as moment:
        damaged = False
        for finding in find_violations(moment):
            damaged |= finding.where == "database"
            yield finding
        if damaged or not (data_dir / OUTPUTS).is_dir():
            return
        yield from _files(moment, database, data_dir, read_files)
    yield from _strays(database, data_dir)


def _files(moment: Database, database: Database, data_dir: Path, read_files: bool) -> Iterator[Finding]:
    for file in iter_completed_files(moment):
        problem = _problem(file, data_dir, read_files)
        if problem is not None and is_completed(database, file):
            yield Finding(f"generation {file.generation_id}", problem)


def _problem(file: CompletedFile, data_dir: Path, read_files: bool) -> str | None:
    if file.path is None:
        return None  # The row was found to be wrong already.
    path = (data_dir / file.path).resolve()
    if not path.is_relative_to(data_dir.resolve()):
        return f"its file {file.path} is not in the data directory"
    try:
        size_bytes = path.stat().st_size
        if file.size_bytes is not None and size_bytes != file.size_bytes:
            return f"its file {file.path} has {size_bytes} bytes, not {file.size_bytes}"
        if read_files and file.sha256 is not None and sha256_of(path) != file.sha256:
            return f"its file {file.path} has changed since it landed"
    except FileNotFoundError:
        return f"its file {file.path} is missing"
    except OSError as error:
        return f"its file {file.path} can't be read: {error.strerror}"
    return None


def _strays(database: Database, data_dir: Path) -> Iterator[Finding]:
    """Files without a row."""
    files = (file for file in (data_dir / OUTPUTS).glob(f"{DAYS}/*") if file.suffix in EXTENSIONS)
    while some := list(islice(files, FILES_AT_ONCE)):
        known = find_existing_ids(database, [file.stem for file in some])
        for file in some:
            if file.stem not in known and file.exists():
                yield Finding(f"file {file.relative_to(data_dir).as_posix()}", "belongs to no generation")
