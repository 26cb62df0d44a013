"""Finds what belongs to the library in its folders: regular files with the name of a UUID, in folders of its own.

A symbolic link within the library is not followed, so that nothing outside is read, written or deleted, and a FIFO or a
device is not opened. Only the folders of the data directory themselves may be links, such as to a larger disk.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from dgx_music.errors import NotFound
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

UUID_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def file_id(path: Path) -> str:
    """Returns the id in the path of a file: its name; in object storage, where an attempt has a file of its own, that
    of the folder.
    """
    return path.stem if UUID_NAME.fullmatch(path.stem) else path.parent.name


def is_regular_file(path: Path) -> bool:
    """Returns whether there is a regular file at the path itself, and not behind a link. Raises OSError."""
    status = lstat_or_none(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def lstat_or_none(path: Path) -> os.stat_result | None:
    """Returns the status of what is at the path itself, or None if nothing is, or its folder is another account's.

    Raises OSError.
    """
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


def iter_folders(folder: Path, name: re.Pattern[str]) -> Iterator[Path]:
    """Yields the folders in a folder whose whole names match, in descending order. Yields none if it does not exist,
    or may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if name.fullmatch(entry.name) and _is_folder(entry)]
    except (FileNotFoundError, PermissionError):
        return
    for found in sorted(names, reverse=True):
        yield folder / found


def iter_day_folders(folder: Path, depth: int = 3) -> Iterator[Path]:
    """Yields the folders of days, YYYY/MM/DD, the latest first; with a depth of 2 or 1 those of months or years."""
    if not depth:
        yield folder
        return
    for parent in iter_folders(folder, DATE_PART):
        yield from iter_day_folders(parent, depth - 1)


DATE_PART = re.compile(r"[0-9]+")


def require_no_link(folder: Path, path: Path) -> None:
    """Raises OSError if a folder between `folder`, which may itself be a link, and `path` is a symbolic link."""
    current = folder
    for part in path.relative_to(folder).parts:
        current /= part
        if current.is_symlink():
            raise OSError(errno.ELOOP, f"{current.relative_to(folder.parent)} is a symbolic link")


def remove_leftover(path: Path) -> None:
    """Removes a file or folder that is incomplete. Does not raise: what can't be removed now is removed by the next
    start of the service, which it must not prevent.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("leftover_not_removed", file=path.name, error=str(error))


class LocalFile:
    """An open file, which stays readable even if it is deleted or replaced meanwhile."""

    def __init__(self, path: Path) -> None:
        """Raises NotFound if the file does not exist any more."""
        try:
            self._file = path.open("rb", 0)
        except FileNotFoundError:
            raise NotFound("file", file_id(path), "it was deleted") from None
        self.name = path.name
        self.size_bytes = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Returns at most `size` bytes; none past the end."""
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        self._file.close()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
