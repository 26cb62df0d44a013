"""What a disk's refusal means to a caller, and how a file is made to last."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from dgx_music.errors import ResourceExhausted, Unavailable

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
RETRY_WHEN_FULL_SECONDS = 60.0
RETRY_SECONDS = 5.0


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Raises ResourceExhausted where there is no room, Unavailable for any other refusal of the disk."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in FULL:
            raise ResourceExhausted(
                f"no room on the library's disk while {doing}: {why}; delete files or give it more room",
                reason="DISK_FULL",
                retry_after_seconds=RETRY_WHEN_FULL_SECONDS,
            ) from error
        raise Unavailable(
            f"the library's disk failed while {doing}: {why}",
            reason="LIBRARY_UNAVAILABLE",
            metadata={"errno": errno.errorcode.get(error.errno or 0, "")},
            retry_after_seconds=RETRY_SECONDS,
        ) from error


def sync_folder(folder: Path) -> None:
    """Makes the folder's entries last: a name that was given or taken away survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_if_empty(folder: Path) -> None:
    """Removes the folder unless something is in it."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        sync_folder(folder.parent)


def mark_used(path: Path) -> None:
    """Has the file's time of modification say that it is used now; that of access says when anybody looked at it."""
    with suppress(OSError):  # Of no weight beside the use.
        os.utime(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of the file at `path`, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def synced_sha256(path: Path) -> str:
    """The same, and the disk has the file for good, which it takes in while that is read. Raises OSError."""
    with ThreadPoolExecutor(1, thread_name_prefix="sync") as beside, path.open("rb") as file:
        syncing = beside.submit(os.fsync, file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        syncing.result()
    return digest


def make_folder(folder: Path) -> None:
    """Makes the folder and its parents, each one made to last."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)
