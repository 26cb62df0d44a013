"""Finds files in the library and in the spool that should not be there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from export_service.library.filesystem import compute_sha256
from export_service.library.library_entries import EntryKind, LibraryEntry, iter_entries
from export_service.library.renders import RENDERS, RenderStore
from export_service.library.store import CLIPS, OUTPUTS, SPOOL
from gateway.cli.commands.database.suspects import Suspect, file_version
from gateway.embedded.ownership import has_owner
from storage_service.db.database import Database
from storage_service.maintenance.file_records import FileOwner, find_file_owners
from storage_service.maintenance.integrity import Finding
from storage_service.states import GenerationStatus

ENTRIES_PER_QUERY = 500

STAGED_SECONDS = 3600.0
"""How long a server may go without writing to a file of which nothing else says that it is in use: an upload, say."""

_UNFINISHED = GenerationStatus.PENDING, GenerationStatus.PROCESSING

_ORPHAN_REMEDY = "delete it, if it is an hour old: dgx-music files cleanup --orphans --yes"
_FOREIGN_REMEDY = "move it elsewhere, or delete it"
_RESTART_REMEDY = "the export service deletes it when it starts the next time"


def find_suspects(database: Database, data_dir: Path, *, read_files: bool) -> dict[str, Suspect]:
    """Returns the problem with each file that has one, by its path. With `read_files`, renders are read, too."""
    suspects, entries, is_served = {}, iter_entries(data_dir), has_owner(data_dir)
    while some := list(islice(entries, ENTRIES_PER_QUERY)):
        owners = find_file_owners(database, list({one.generation_id for one in some if one.generation_id}))
        for entry in some:
            version = file_version(entry.path)
            for problem, remedy in _check(entry, owners.get(entry.generation_id), data_dir, is_served, read_files):
                path = entry.path.relative_to(data_dir).as_posix()
                suspects[path] = Suspect(Finding(f"file {path}", problem, remedy), version)
    return suspects


def _check(
    entry: LibraryEntry, owner: FileOwner | None, data_dir: Path, is_served: bool, read_files: bool
) -> Iterator[tuple[str, str]]:
    """Yields the problem, if there is one, and what to do about it. `is_served`: an export service may be running."""
    if entry.problem:
        yield entry.problem, _FOREIGN_REMEDY
    elif entry.kind is EntryKind.STAGED:
        if not (is_served and _is_in_use(entry, owner)):
            yield "is left over from a file that was not completed", _RESTART_REMEDY
    elif entry.folder == CLIPS:
        pass  # Nothing else knows of it.
    elif owner is None:
        yield "belongs to no generation", _RESTART_REMEDY if entry.folder == SPOOL else _ORPHAN_REMEDY
    elif entry.kind is EntryKind.ARRIVING:
        if not (is_served and owner.status is GenerationStatus.PROCESSING and entry.attempt == owner.attempt):
            yield "is left over from an attempt that has ended", _RESTART_REMEDY
    elif entry.folder == OUTPUTS:
        yield from _check_output(entry, owner, data_dir)
    elif entry.folder == RENDERS and read_files and entry.kind is EntryKind.AUDIO:
        yield from _check_render(entry, data_dir)


def _check_output(entry: LibraryEntry, owner: FileOwner, data_dir: Path) -> Iterator[tuple[str, str]]:
    path = entry.path.relative_to(data_dir).as_posix()
    recorded = (owner.path or "").rpartition(".")[0]
    if owner.status is GenerationStatus.COMPLETED:
        is_recorded = path == owner.path or (entry.kind is EntryKind.COMPANION and path.startswith(f"{recorded}."))
        if not is_recorded:
            yield f"is not the file of its generation, which is {owner.path}", _FOREIGN_REMEDY
    elif owner.status not in _UNFINISHED:  # Else the worker is about to report it, or the next attempt replaces it.
        is_cancelled = owner.status is GenerationStatus.CANCELLED
        remedy = _ORPHAN_REMEDY if is_cancelled else f"delete both: dgx-music delete {entry.generation_id}"
        yield f"belongs to a generation that is {owner.status.name}", remedy


def _check_render(entry: LibraryEntry, data_dir: Path) -> Iterator[tuple[str, str]]:
    render = RenderStore(data_dir).load(entry.generation_id, entry.path.stem)
    if render is not None and compute_sha256(entry.path) != render.file.file_sha256:
        yield "has changed since it was written", "delete it, and render it again"


def _is_in_use(entry: LibraryEntry, owner: FileOwner | None) -> bool:
    """Returns whether a running server may be writing the staged file."""
    if owner is not None and owner.status is GenerationStatus.PROCESSING and entry.attempt == owner.attempt:
        return True
    try:
        return time.time() - entry.path.stat().st_mtime < STAGED_SECONDS
    except OSError:
        return False
