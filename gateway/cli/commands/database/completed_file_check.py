"""Compares the rows of COMPLETED generations with their files."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from export_service.library.filesystem import compute_sha256
from export_service.library.store import OUTPUTS
from gateway.cli.commands.database.suspects import Suspect, file_version
from storage_service.db.database import Database
from storage_service.maintenance.file_records import CompletedFile, find_completed_file, iter_completed_files
from storage_service.maintenance.integrity import Finding

_MISSING_REMEDY = "restore the file from a backup, or delete its generation: dgx-music files cleanup --missing --yes"
_CHANGED_REMEDY = "restore the file from a backup, or record it as it is by setting a tag: dgx-music files tag"
_LINK_REMEDY = "replace the link by the file itself"


def find_suspects(database: Database, data_dir: Path, *, read_files: bool) -> dict[str, Suspect]:
    """Returns the problem with the file of each COMPLETED generation that has one, by its id."""
    return _check(iter_completed_files(database), data_dir, read_files)


def look_again(database: Database, data_dir: Path, ids: Collection[str], *, read_files: bool) -> dict[str, Suspect]:
    """Returns the same for these generations, by what is recorded now."""
    files = (find_completed_file(database, one) for one in ids)
    return _check((file for file in files if file is not None), data_dir, read_files)


def _check(files: Iterable[CompletedFile], data_dir: Path, read_files: bool) -> dict[str, Suspect]:
    suspects = {}
    for file in files:
        if file.path is None:
            continue  # A problem of the row, which is reported as such.
        version = file_version(data_dir / file.path)
        if (found := _find_problem(file, file.path, data_dir, read_files)) is not None:
            finding = Finding(f"generation {file.generation_id}", *found)
            suspects[file.generation_id] = Suspect(finding, version)
    return suspects


def _find_problem(file: CompletedFile, recorded: str, data_dir: Path, read_files: bool) -> tuple[str, str] | None:
    """Returns the problem and what to do about it."""
    path = data_dir / recorded
    resolved, outputs = path.resolve(), (data_dir / OUTPUTS).resolve()  # The folder itself may be on another disk.
    if not (resolved.is_relative_to(data_dir.resolve()) or resolved.is_relative_to(outputs)):
        return f"its file {recorded} is outside the data directory", ""
    try:
        if path.is_symlink():
            return f"its file {recorded} is a symbolic link", _LINK_REMEDY
        size_bytes = path.stat().st_size
        if file.size_bytes is not None and size_bytes != file.size_bytes:
            return f"its file {recorded} has {size_bytes} bytes, not {file.size_bytes}", _CHANGED_REMEDY
        if read_files and file.sha256 is not None and compute_sha256(path) != file.sha256:
            return f"its file {recorded} has changed since it was written", _CHANGED_REMEDY
    except FileNotFoundError:
        return f"its file {recorded} is missing", _MISSING_REMEDY
    except OSError as error:
        return f"failed to read its file {recorded}: {error.strerror}", ""
    return None
