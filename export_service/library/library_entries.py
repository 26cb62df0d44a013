"""Lists everything that is in the folders of the library and of the spool, for a check of what belongs there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from export_service.formats.codecs import EXTENSIONS
from export_service.formats.provenance import MANIFEST_EXTENSION
from export_service.library.renders import RENDERS, STAGING
from export_service.library.store import CLIPS, OUTPUTS, SPOOL

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ID = re.compile(_UUID)
_OF_ATTEMPT = re.compile(rf"({_UUID})\.(\d{{1,10}})\.")
_DATE_PARTS = re.compile(r"\d{4}"), re.compile(r"\d{2}"), re.compile(r"\d{2}")
_DESCRIPTION_EXTENSION = ".json"
"""Of the file that describes a render."""
_DELETED_BY_NFS = ".nfs"
"""How the name of a file begins that was deleted on a network file system while a process had it open."""


_NOT_IN_LIBRARY = "is not part of the library"


class EntryKind(StrEnum):
    """What an entry is, by its place and its name."""

    AUDIO = "audio"
    """A finished file, a render or a clip."""
    COMPANION = "companion"
    """A manifest, or the description of a render."""
    STAGED = "staged"
    """A file that is being written."""
    ARRIVING = "arriving"
    """The samples of an attempt, of which some are still missing."""
    RECEIVED = "received"
    """The samples of an attempt, all of which have arrived, and their description."""
    FOREIGN = "foreign"
    """None of these."""


@dataclass(frozen=True)
class LibraryEntry:
    """A file, or whatever else is in one of the folders."""

    path: Path
    folder: str
    """OUTPUTS, CLIPS, RENDERS or SPOOL."""
    kind: EntryKind
    generation_id: str = ""
    """The generation to which it belongs by its name; empty for a clip, and if the name does not say so."""
    attempt: int = 0
    """The attempt to which it belongs by its name; 0 if the name does not say so."""
    problem: str = ""
    """What is wrong with it, if the folder alone shows that."""


def iter_entries(data_dir: Path) -> Iterator[LibraryEntry]:
    """Yields everything in the folders except the folders that should be there.

    These may be symbolic links to another disk; what is in them may not be a link. Reads one folder at a time: what is
    added or deleted meanwhile may be missing. Raises OSError.
    """
    for folder in (OUTPUTS, CLIPS):
        yield from _iter_days(data_dir / folder, folder, depth=0)
    yield from _iter_renders(data_dir / RENDERS)
    for entry in _scan(data_dir / SPOOL):
        yield _find_foreign(entry, SPOOL) or _parse_spool(Path(entry.path))


def _iter_days(parent: Path, folder: str, depth: int) -> Iterator[LibraryEntry]:
    if depth == len(_DATE_PARTS):
        yield from _iter_audio(parent, folder)
        return
    for entry in _scan(parent):
        if entry.is_dir(follow_symlinks=False) and _DATE_PARTS[depth].fullmatch(entry.name):
            yield from _iter_days(Path(entry.path), folder, depth + 1)
        elif entry.is_dir(follow_symlinks=False) and depth == 0 and entry.name == STAGING:
            yield from _iter_staged(Path(entry.path), folder)
        else:
            yield _find_foreign(entry, folder) or _foreign(entry, folder)


def _iter_renders(parent: Path) -> Iterator[LibraryEntry]:
    for entry in _scan(parent):
        if entry.is_dir(follow_symlinks=False) and entry.name == STAGING:
            yield from _iter_staged(Path(entry.path), RENDERS)
        elif entry.is_dir(follow_symlinks=False) and _ID.fullmatch(entry.name):
            yield from _iter_audio(Path(entry.path), RENDERS)
        else:
            yield _find_foreign(entry, RENDERS) or _foreign(entry, RENDERS)


def _iter_audio(parent: Path, folder: str) -> Iterator[LibraryEntry]:
    """Yields the finished files in a folder, and what lies beside them."""
    entries = _scan(parent)
    names = {Path(entry.name) for entry in entries}
    audio_stems = {name.stem for name in names if name.suffix in EXTENSIONS}
    for entry in entries:
        path = Path(entry.path)
        owner = {RENDERS: parent.name, CLIPS: ""}.get(folder, path.stem)
        if foreign := _find_foreign(entry, folder):
            yield foreign
        elif not _ID.fullmatch(path.stem):
            yield _foreign(entry, folder)
        elif path.suffix in EXTENSIONS:
            has_description = folder != RENDERS or path.with_suffix(_DESCRIPTION_EXTENSION).relative_to(parent) in names
            problem = "" if has_description else "has no description"
            yield LibraryEntry(path, folder, EntryKind.AUDIO, owner, problem=problem)
        elif path.suffix == MANIFEST_EXTENSION or (folder == RENDERS and path.suffix == _DESCRIPTION_EXTENSION):
            problem = "" if path.stem in audio_stems else "belongs to a file that does not exist"
            yield LibraryEntry(path, folder, EntryKind.COMPANION, owner, problem=problem)
        else:
            yield _foreign(entry, folder)


def _iter_staged(parent: Path, folder: str) -> Iterator[LibraryEntry]:
    for entry in _scan(parent):
        found = _OF_ATTEMPT.match(entry.name) if folder == OUTPUTS else None
        generation_id, attempt = (found[1], int(found[2])) if found else ("", 0)
        staged = LibraryEntry(Path(entry.path), folder, EntryKind.STAGED, generation_id, attempt)
        yield _find_foreign(entry, folder) or staged


def _parse_spool(path: Path) -> LibraryEntry:
    found = _OF_ATTEMPT.match(path.name)
    if found is None:
        return LibraryEntry(path, SPOOL, EntryKind.FOREIGN, problem=_NOT_IN_LIBRARY)
    has_arrived = path.with_name(found[0] + "json").exists() or path.name.endswith(".pcm")
    kind = EntryKind.RECEIVED if has_arrived else EntryKind.ARRIVING
    return LibraryEntry(path, SPOOL, kind, found[1], int(found[2]))


def _foreign(entry: os.DirEntry[str], folder: str, problem: str = _NOT_IN_LIBRARY) -> LibraryEntry:
    return LibraryEntry(Path(entry.path), folder, EntryKind.FOREIGN, problem=problem)


def _find_foreign(entry: os.DirEntry[str], folder: str) -> LibraryEntry | None:
    """Returns the entry of anything but a file."""
    if entry.is_symlink():
        return _foreign(entry, folder, "is a symbolic link")
    return None if entry.is_file(follow_symlinks=False) else _foreign(entry, folder, "is not a file")


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    return [entry for entry in found if not entry.name.startswith(_DELETED_BY_NFS)]
