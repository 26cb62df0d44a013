"""Access rights of new files and folders, whatever the umask of the environment.

Only the owner may use the data directory: files are 0600 and folders 0700. The library's files may be opened to the
group. A process limits its umask besides, so that nothing it creates elsewhere is writable by the group or open to all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileModes:
    """The access rights of files, and of the folders that they are in."""

    file: int
    folder: int


PRIVATE = FileModes(0o600, 0o700)
GROUP_READABLE = FileModes(0o640, 0o750)


def limit_umask() -> None:
    """From now on new files are 0640 and new folders 0750 at most. A stricter umask stays."""
    os.umask(os.umask(0o077) | 0o027)


@contextmanager
def private_umask() -> Iterator[None]:
    """Makes what is created in the block private from its first moment, also by a library that takes no mode."""
    previous = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(previous)


def set_mode(path: Path, mode: int) -> None:
    """Sets the access rights, unless the file system has none or the file belongs to someone else."""
    with suppress(OSError):
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def restrict(path: Path, mode: int) -> None:
    """Takes away the access rights beyond `mode`, where `set_mode` can. Does nothing if the path does not exist."""
    with suppress(OSError):
        set_mode(path, stat.S_IMODE(path.stat().st_mode) & mode)


def make_data_dir(folder: Path) -> None:
    """Creates a private folder, and its parents. Leaves one that exists as it is. Raises OSError."""
    try:
        folder.mkdir(PRIVATE.folder, parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        set_mode(folder, PRIVATE.folder)


def make_private_folder(folder: Path) -> None:
    """Creates a private folder, and makes one that exists private. Raises OSError."""
    make_data_dir(folder)
    restrict(folder, PRIVATE.folder)


def create_private_file(path: Path) -> None:
    """Creates an empty private file, or makes one that exists private. Raises OSError."""
    # One that exists is not opened: closing it again would release all locks that this process has on it (POSIX), and
    # SQLite's connections to a database would go on as if they had them.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, PRIVATE.file))
    restrict(path, PRIVATE.file)


def open_private(path: str | Path, flags: int) -> int:
    """An opener for `open` whose new files are private."""
    return os.open(path, flags, PRIVATE.file)
