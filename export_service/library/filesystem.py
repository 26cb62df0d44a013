"""File-system helpers: errors of the disk as service errors, durable folders and hashing."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from dgx_music.errors import FailedPrecondition, ResourceExhausted, Unavailable
from service_runtime.failpoints import failpoint
from service_runtime.file_modes import PRIVATE, FileModes, restrict, set_mode

DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DISK_FULL_RETRY_SECONDS = 60.0
DISK_ERROR_RETRY_SECONDS = 5.0
MIN_FREE_BYTES = 1 << 20
"""Below this no export can succeed: its samples alone take 128 kB for each second of 32 kHz mono."""


@contextmanager
def translate_disk_errors(action: str) -> Iterator[None]:
    """Translates an OSError: ResourceExhausted if the disk is full, Unavailable otherwise.

    `action` says what was being done, for example "writing the file"; it becomes part of the message.
    """
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in DISK_FULL_ERRNOS:
            raise ResourceExhausted(
                f"the library's disk is full ({cause}, while {action}); delete files or enlarge the disk",
                reason="DISK_FULL",
                retry_after_seconds=DISK_FULL_RETRY_SECONDS,
            ) from error
        raise Unavailable(
            f"the library's disk failed ({cause}, while {action})",
            reason="LIBRARY_UNAVAILABLE",
            metadata={"errno": errno.errorcode.get(error.errno or 0, "")},
            retry_after_seconds=DISK_ERROR_RETRY_SECONDS,
        ) from error


def folder_has_no_urls() -> FailedPrecondition:
    """Returns the error of a request for a URL of a file that is in a folder."""
    return FailedPrecondition(
        "the library is a folder on the export server, which has no URLs; use Download (`dgx-music download`), or keep "
        "the library in object storage with DGX_MUSIC_LIBRARY_URL",
        reason="NO_OBJECT_STORAGE",
    )


def require_free_space(folder: Path) -> None:
    """Raises OSError (ENOSPC) if there is no room for a file of music on the folder's disk."""
    if shutil.disk_usage(folder).free < MIN_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fsync_folder(folder: Path) -> None:
    """Makes the folder's entries durable: a file that was created, renamed or deleted stays so after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, mode: int = PRIVATE.folder) -> None:
    """Creates the folder and its parents with these access rights, durably. Does nothing if it exists."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode)
    folder.mkdir(mode, exist_ok=True)
    set_mode(folder, mode)
    fsync_folder(folder.parent)


def make_private_folder(folder: Path) -> None:
    """Creates the folder, durably, and makes one that exists private."""
    make_folder(folder)
    restrict(folder, PRIVATE.folder)


def widen_folders(folders: Iterable[Path], modes: FileModes) -> None:
    """Opens existing folders as far as `modes` asks for, so that files in them can be reached. Never closes any."""
    for folder in folders:
        set_mode(folder, stat.S_IMODE(folder.stat().st_mode) | modes.folder)


def remove_if_empty(folder: Path) -> None:
    """Removes the folder if it exists and is empty."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        fsync_folder(folder.parent)


def mark_used(path: Path) -> None:
    """Sets the file's modification time to now, to record that it is in use.

    The access time would not do: it also changes when a backup or a verification reads the file.
    """
    with suppress(OSError):  # Reading the file matters more than the record of it.
        os.utime(path)


def compute_sha256(path: Path) -> str:
    """Returns the SHA-256 of the file, lower-case hex."""
    with path.open("rb") as file:
        failpoint("export.file_read")
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_and_compute_sha256(path: Path) -> str:
    """Returns the SHA-256 of the file, and has it written to disk in the meantime. Raises OSError."""
    with ThreadPoolExecutor(1, thread_name_prefix="fsync") as executor, path.open("rb") as file:
        syncing = executor.submit(os.fsync, file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        syncing.result()
    return digest
