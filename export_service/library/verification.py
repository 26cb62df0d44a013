"""Verifies that files have not changed since they were added to the library, by their SHA-256."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from export_service.library.filesystem import compute_sha256
from export_service.library.store import Library


class FileCondition(Enum):
    """Outcome of verifying one file."""

    INTACT = "intact"
    CHANGED = "changed"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    """The disk failed to read it."""
    PRESENT = "present"
    """It exists, but was not compared: its expected hash is unknown, or only presence was to be checked."""


@dataclass(frozen=True)
class VerificationResult:
    """The outcome for one file: a generation's own file or one of its renders."""

    generation_id: str
    render_id: str
    condition: FileCondition
    path: Path | None = None
    """None if the file is missing."""
    size_bytes: int = 0
    sha256: str = ""
    """The current hash; empty if the file was not read."""
    problem: str = ""
    """The disk's error message if the file is unreadable."""


def verify(library: Library, generation_id: str, sha256: str, *, presence_only: bool) -> Iterator[VerificationResult]:
    """Yields the result for the generation's file, then for each of its renders.

    The file is compared with `sha256`, unless that is empty; a render with the hash noted beside it. Blocks: call it
    in a thread.
    """
    yield _verify_file(library.find(generation_id), generation_id, "", sha256, presence_only)
    for render_id, path, expected_sha256 in library.renders.iter_renders(generation_id):
        result = _verify_file(path, generation_id, render_id, expected_sha256, presence_only)
        if result.condition is FileCondition.CHANGED:
            render = library.renders.load(generation_id, render_id)
            if render is not None and render.file.file_sha256 == result.sha256:  # Its tags have just been edited.
                result = replace(result, condition=FileCondition.INTACT)
        yield result


def _verify_file(
    path: Path | None, generation_id: str, render_id: str, expected_sha256: str, presence_only: bool
) -> VerificationResult:
    if path is None:
        return VerificationResult(generation_id, render_id, FileCondition.MISSING)
    try:
        size_bytes = path.stat().st_size
        if presence_only:
            return VerificationResult(generation_id, render_id, FileCondition.PRESENT, path, size_bytes)
        sha256 = compute_sha256(path)
    except FileNotFoundError:
        return VerificationResult(generation_id, render_id, FileCondition.MISSING)
    except OSError as error:
        problem = error.strerror or str(error)
        return VerificationResult(generation_id, render_id, FileCondition.UNREADABLE, path, problem=problem)
    if not expected_sha256:
        condition = FileCondition.PRESENT
    else:
        condition = FileCondition.INTACT if sha256 == expected_sha256 else FileCondition.CHANGED
    return VerificationResult(generation_id, render_id, condition, path, size_bytes, sha256)
