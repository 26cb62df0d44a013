"""Whether files are what they were when they landed: each read whole, and held against the SHA-256 of then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from export_service.library.filesystem import sha256_of
from export_service.library.store import Library


class Condition(Enum):
    """How a file was found."""

    INTACT = "intact"
    CHANGED = "changed"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    """The disk refuses it."""
    PRESENT = "present"
    """And nothing is known to hold it against, or it was not to be read."""


@dataclass(frozen=True)
class Verified:
    """One file, a generation's or one of its renders."""

    generation_id: str
    render_id: str
    condition: Condition
    path: Path | None = None
    """None for one that is missing."""
    size_bytes: int = 0
    sha256: str = ""
    """As it is now; empty where it was not read."""
    problem: str = ""
    """The disk's own word for why it refuses."""


def verify(library: Library, generation_id: str, sha256: str, *, presence_only: bool) -> Iterator[Verified]:
    """The generation's file, held against `sha256` unless that is empty; then its renders, against what is noted beside
    each. Blocks: call it on a thread.
    """
    yield _verified(library.find(generation_id), generation_id, "", sha256, presence_only)
    for render_id, path, noted in library.renders.of(generation_id):
        yield _verified(path, generation_id, render_id, noted, presence_only)


def _verified(path: Path | None, generation_id: str, render_id: str, expected: str, presence_only: bool) -> Verified:
    if path is None:
        return Verified(generation_id, render_id, Condition.MISSING)
    try:
        size_bytes = path.stat().st_size
        if presence_only:
            return Verified(generation_id, render_id, Condition.PRESENT, path, size_bytes)
        found = sha256_of(path)
    except FileNotFoundError:
        return Verified(generation_id, render_id, Condition.MISSING)
    except OSError as error:
        return Verified(generation_id, render_id, Condition.UNREADABLE, path, problem=error.strerror or str(error))
    condition = Condition.PRESENT if not expected else Condition.INTACT if found == expected else Condition.CHANGED
    return Verified(generation_id, render_id, condition, path, size_bytes, found)
