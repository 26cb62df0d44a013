"""Folders for unfinished copies of a database. Each is locked with flock(2) while its process lives, so that the next
copy can remove what a killed process left: it is as large as the database, and as private."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".dgx-music-copy"
"""How the names of the folders end."""
_NOT_YET = ".dgx-music-new"
"""How the name of one ends that is not locked yet, which others leave alone."""


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yields a new private folder beside `path`, on the same file system, and deletes it at the end. Raises OSError."""
    _remove_abandoned(path.parent)
    new = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_NOT_YET, dir=path.parent))
    folder = new.with_suffix(SUFFIX)
    descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor)
        os.rename(new, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _remove_abandoned(parent: Path) -> None:
    """Removes the folders that killed processes have left in `parent`."""
    for folder in parent.iterdir():
        if folder.suffix == SUFFIX:
            with suppress(OSError):  # It is locked by a running process, or has just been removed.
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
                finally:
                    os.close(descriptor)


def _lock(descriptor: int) -> None:
    with suppress(OSError):  # Some network file systems have no locks. What is left there stays.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
