"""What `dgx-music db check` has seen of a file at one moment, while a server may be changing it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from storage_service.maintenance.integrity import Finding


@dataclass(frozen=True)
class Suspect:
    """A problem that is real if it is still the same a moment later."""

    finding: Finding
    version: tuple[int | str, ...]
    """Identifies the content of the file; empty if there is none."""


def file_version(path: Path) -> tuple[int, ...]:
    """Returns what changes when the file is replaced or written to; empty if it can't be found."""
    try:
        status = os.lstat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns
