"""Copies of objects on the local disk, for what reads files: at `objects/<e_tag>/<key>` in the data directory.

A path stands for one version of one object, and what is at it never changes. Copies that were not used for the longest
time are removed when all of them are larger than the limit, but none that is in use: the limit is then exceeded.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from dgx_music.errors import Unavailable
from export_service.formats.provenance import staged_manifest_path
from export_service.library.filesystem import make_private_folder
from export_service.library.regular_files import file_id, lstat_or_none
from export_service.library.renders import RENDERS, STAGING
from export_service.objects.bucket import Bucket, StoredObject
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

OBJECTS = "objects"
"""The folder of the copies."""
READ_BYTES = 8 << 20
LOCKS = 64


class ObjectCache:
    """The copies of one data directory. Methods block: call them in a thread."""

    def __init__(self, data_dir: Path, bucket: Bucket, limit_bytes: int, is_in_use: Callable[[str], bool]) -> None:
        """`is_in_use` returns whether a file of the generation or clip is open, or about to be opened."""
        self._folder = data_dir / OBJECTS
        self.staging = self._folder / STAGING
        self._bucket, self._limit_bytes, self._is_in_use = bucket, limit_bytes, is_in_use
        self._sizes = OrderedDict[Path, int]()
        """Of the copies, the one that was used last at the end."""
        self._total_bytes = 0
        self._lock = threading.Lock()
        self._fetch_locks = [threading.Lock() for _ in range(LOCKS)]

    def open(self) -> None:
        """Creates the folder, removes what earlier processes left incomplete, and finds the copies that they made."""
        make_private_folder(self._folder)
        make_private_folder(self.staging)
        for leftover in self.staging.iterdir():
            leftover.unlink()
        found = [(path, path.stat()) for path in self._folder.rglob("*") if path.is_file() and not path.is_symlink()]
        found.sort(key=lambda one: one[1].st_mtime)
        with self._lock:
            self._sizes = OrderedDict((path, status.st_size) for path, status in found)
            self._total_bytes = sum(self._sizes.values())

    def check(self) -> None:
        """Raises OSError if files can't be written."""
        if not os.access(self.staging, os.W_OK | os.X_OK):
            raise OSError(f"{self.staging} is not writable")

    def path_of(self, stored: StoredObject) -> Path:
        """Returns the path of the copy of an object, which may not exist."""
        return self._folder / quote(stored.e_tag, safe="") / stored.key

    def version_of(self, path: Path) -> tuple[str, str]:
        """Returns key and e_tag of the object that a path stands for."""
        e_tag, *key = path.relative_to(self._folder).parts
        return "/".join(key), unquote(e_tag)

    def fetch(self, stored: StoredObject) -> Path:
        """Returns the path of the copy, which is made if there is none.

        Raises OSError, ObjectMissing and ObjectReplaced, and Unavailable if what arrives is not what was uploaded.
        """
        path = self.path_of(stored)
        with self._fetch_locks[hash(path) % LOCKS]:
            status = lstat_or_none(path)
            if status is None or status.st_size != stored.size_bytes:
                part = self.staging / f"{uuid.uuid4()}.fetch"
                try:
                    self._download(stored, part)
                    self._keep(part, path)
                finally:
                    part.unlink(missing_ok=True)
            self._mark_used(path, stored.size_bytes)
        return path

    def adopt(self, staged: Path, stored: StoredObject) -> Path:
        """Makes a file that has been uploaded the copy of the object, and returns its path. Does not raise: without a
        copy, the object is read from the bucket.
        """
        path = self.path_of(stored)
        try:
            staged_manifest_path(staged).unlink(missing_ok=True)  # It is in the bucket, too.
            self._keep(staged, path)
            self._mark_used(path, stored.size_bytes)
        except OSError as error:
            log.warning("object_not_cached", key=stored.key, error=str(error))
        return path

    def _keep(self, part: Path, path: Path) -> None:
        with self._lock:  # So that the folder is not removed in between.
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.replace(part, path)

    def _download(self, stored: StoredObject, part: Path) -> None:
        _, attributes = self._bucket.head(stored.key)
        sha256, position = hashlib.sha256(), 0
        with part.open("xb") as file:
            while position < stored.size_bytes:
                data = self._bucket.read_range(stored, position, READ_BYTES)
                sha256.update(data)
                file.write(data)
                position += len(data)
            file.flush()
            os.fsync(file.fileno())  # After a power cut the copy would have the right size, and zeros in it.
        expected = attributes.get("sha256", "")
        if expected and sha256.hexdigest() != expected:
            raise Unavailable(
                f"the object {stored.key} is damaged: its content is not what was uploaded", reason="FILE_DAMAGED"
            )

    def _mark_used(self, path: Path, size_bytes: int) -> None:
        """Notes a use, and removes other copies until the rest is within the limit."""
        with suppress(OSError):
            os.utime(path)  # The order of use survives a restart.
        with self._lock:
            self._total_bytes += size_bytes - self._sizes.pop(path, 0)
            self._sizes[path] = size_bytes
            for other in [] if self._total_bytes <= self._limit_bytes else list(self._sizes):
                if self._total_bytes <= self._limit_bytes:
                    break
                if other != path and not self._is_in_use(_owner_of(other)):
                    self._remove(other)

    def _remove(self, path: Path) -> None:
        self._total_bytes -= self._sizes.pop(path)
        with suppress(OSError):  # Until a folder is not empty.
            path.unlink(missing_ok=True)
            for folder in path.parents[: len(path.relative_to(self._folder).parts) - 1]:
                folder.rmdir()


def _owner_of(path: Path) -> str:
    """Returns the id of the generation or clip that a copy belongs to."""
    return path.parts[-3] if path.parts[-4] == RENDERS else file_id(path)
