"""The bucket: its objects, by the library's keys. The only module that uses the client of the object storage."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgx_music.errors import FailedPrecondition, ServiceError, Unavailable
from export_service.objects.object_errors import ObjectMissing, ObjectReplaced, translate_object_errors
from export_service.objects.object_keys import AFTER_ALL_NAMES
from export_service.objects.object_storage_url import ObjectStorageUrl, client_options
from service_runtime.optional_deps import install_extra_command

if TYPE_CHECKING:
    from obstore.store import S3Store

REQUEST_SECONDS = 60.0
"""Limit for a request, and for each part of an upload."""
CHECK_SECONDS = 5.0
"""Limit for a request on which a health check or the start of an export waits."""
RETRY_SECONDS = 20.0
MAX_RETRIES = 4
PART_BYTES = 16 << 20
PARALLEL_PARTS = 4
"""An upload takes this many times PART_BYTES of memory."""
SINGLE_UPLOAD_BYTES = 32 << 20
"""Up to this size an object is uploaded by one request."""
MIN_BYTES_PER_SECOND = 1 << 20
"""How fast an object arrives at least that is uploaded by one request although it is larger."""
MAX_PUT_BYTES = 5 << 30
"""S3's limit for one request."""
NO_E_TAG = '"0123456789abcdef0123456789abcdef"'
"""That of no object."""
LIST_OBJECTS = 1000
"""In one answer, S3's limit."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the bucket lists it."""

    key: str
    size_bytes: int
    modified_at: datetime
    e_tag: str
    """Another one for every version, with its quotes."""


class Bucket:
    """Objects below the prefix of a bucket. Methods block: call them in a thread.

    They raise Unavailable and ResourceExhausted, and as far as they say so, ObjectMissing and ObjectReplaced.
    """

    def __init__(self, url: str, public_endpoint: str | None = None) -> None:
        """`public_endpoint` is the address of the storage in signed URLs. Raises FailedPrecondition if the URL is not
        valid, or if the client is not installed or can't be configured.
        """
        self.url = ObjectStorageUrl.parse(url)
        self._public_endpoint = public_endpoint
        self.failures = 0
        """How many requests have failed, except for what the objects are or are not."""
        self._client = lru_cache(maxsize=8)(self._create_client)
        for seconds in (REQUEST_SECONDS, CHECK_SECONDS):
            self._client(seconds)

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self.url.bucket

    def list_objects(self, prefix: str, after: str = "") -> Iterator[StoredObject]:
        """Yields the objects below a prefix, which ends where a part of their keys does, in the order of the keys;
        with `after`, only those that come after this key.
        """
        with self._translate("listing objects"):
            for chunk in self._client(REQUEST_SECONDS).list(
                prefix or None, offset=after or None, chunk_size=LIST_OBJECTS
            ):
                yield from map(_stored, chunk)

    def peek(self, prefix: str) -> list[StoredObject]:
        """Returns the objects below a prefix like `list_objects`, but gives up soon. Not for more than a few."""
        with self._translate("listing objects"):
            return [_stored(one) for one in self._client(CHECK_SECONDS).list(prefix).collect()]

    def head(self, key: str) -> tuple[StoredObject, Mapping[str, str]]:
        """Returns the object and its attributes. Raises ObjectMissing."""
        with self._translate("reading an object"):
            found = self._client(REQUEST_SECONDS).get(key, options={"head": True})
            return _stored(found.meta), {str(name): value for name, value in found.attributes.items()}

    def read_range(self, stored: StoredObject, offset: int, size: int) -> bytes:
        """Returns bytes of this version of the object; fewer at its end. Raises ObjectMissing and ObjectReplaced."""
        end = min(offset + size, stored.size_bytes)
        if offset >= end:
            return b""
        with self._translate("reading an object"):
            options: Any = {"if_match": stored.e_tag, "range": (offset, end)}
            data = bytes(self._client(REQUEST_SECONDS).get(stored.key, options=options).bytes())
        if len(data) != end - offset:
            raise Unavailable(
                f"the object storage sent {len(data)} bytes of {stored.key} instead of {end - offset}",
                reason="OBJECT_STORAGE_UNAVAILABLE",
                retry_after_seconds=CHECK_SECONDS,
            )
        return data

    def put_bytes(self, key: str, data: bytes, *, is_check: bool = False) -> None:
        """Writes a small object."""
        with self._translate("writing an object"):
            self._client(CHECK_SECONDS if is_check else REQUEST_SECONDS).put(key, data, use_multipart=False)

    def refuses_to_replace_another(self, key: str, data: bytes) -> bool:
        """Returns whether the storage refuses to replace the object as if it were another version."""
        mode: Any = {"e_tag": NO_E_TAG}
        try:
            with self._translate("writing an object under a condition"):
                self._client(REQUEST_SECONDS).put(key, data, mode=mode, use_multipart=False)
        except ObjectReplaced:
            return True
        return False

    def upload(self, key: str, path: Path, attributes: Mapping[str, str], replaced: str | None = None) -> StoredObject:
        """Writes a file as an object, which is either complete or not there.

        With `replaced`, only over the version with this e_tag: raises ObjectReplaced or ObjectMissing otherwise, and
        FailedPrecondition if the file is too large for a conditional request.
        """
        size = path.stat().st_size
        values: Any = dict(attributes)
        if replaced is None and size > SINGLE_UPLOAD_BYTES:
            with self._translate("writing an object"):
                self._client(REQUEST_SECONDS).put(
                    key,
                    path,
                    attributes=values,
                    use_multipart=True,
                    chunk_size=PART_BYTES,
                    max_concurrency=PARALLEL_PARTS,
                )
            return self.head(key)[0]
        if size > MAX_PUT_BYTES:
            raise FailedPrecondition(
                f"{key} has {size} bytes, and an object of more than {MAX_PUT_BYTES} can't be replaced",
                reason="FILE_TOO_LARGE",
            )
        mode: Any = "overwrite" if replaced is None else {"e_tag": replaced}
        seconds = REQUEST_SECONDS + size // MIN_BYTES_PER_SECOND // 60 * 60
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                with self._translate("writing an object"):
                    self._client(seconds).put(key, content, attributes=values, mode=mode, use_multipart=False)
            except ObjectReplaced:
                # The answer to a first try may have been lost: it is then this try that finds the object changed.
                stored, existing = self._head_or_raise_replaced(key)
                if existing.get("sha256") != attributes.get("sha256") or stored.size_bytes != size:
                    raise
                return stored
        return self.head(key)[0]

    def _head_or_raise_replaced(self, key: str) -> tuple[StoredObject, Mapping[str, str]]:
        try:
            return self.head(key)
        except ObjectMissing:
            raise ObjectReplaced from None

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects. Those that do not exist are no error."""
        if some := list(keys):
            with self._translate("deleting objects"):
                self._client(REQUEST_SECONDS).delete(some)

    def sign(self, key: str, expires: timedelta) -> str:
        """Returns a URL with which anybody can read the object until it expires."""
        import obstore

        with self._translate("signing a URL"):
            return obstore.sign(self._client(REQUEST_SECONDS, self._public_endpoint), "GET", key, expires)

    def _create_client(self, seconds: float, endpoint: str | None = None) -> S3Store:
        try:
            from obstore.store import S3Store
        except ImportError as error:
            raise FailedPrecondition(
                f"DGX_MUSIC_LIBRARY_URL needs the extra `s3`: {install_extra_command('s3')}", reason="EXTRA_MISSING"
            ) from error
        retries = 0 if seconds == CHECK_SECONDS else MAX_RETRIES
        try:
            return S3Store(
                self.url.bucket,
                prefix=self.url.prefix or None,
                checksum_algorithm="SHA256",
                retry_config={
                    "max_retries": retries,
                    "retry_timeout": timedelta(seconds=RETRY_SECONDS),
                    "backoff": {"max_backoff": timedelta(seconds=2)},
                },
                **client_options(seconds, endpoint),
            )
        except Exception as error:
            raise FailedPrecondition(
                f"the client of the object storage can't be configured: {error}; check the AWS_ variables",
                reason="OBJECT_STORAGE_MISCONFIGURED",
            ) from error

    @contextmanager
    def _translate(self, action: str) -> Iterator[None]:
        try:
            with translate_object_errors(action, self.url.bucket):
                yield
        except ServiceError:
            self.failures += 1
            raise


def skip_folder(folder: str) -> str:
    """Returns what comes after all keys in a folder, for `list_objects`."""
    return f"{folder}/{AFTER_ALL_NAMES}"


def _stored(meta: Mapping[str, Any]) -> StoredObject:
    e_tag = meta["e_tag"]
    if not e_tag:
        raise Unavailable("the object storage gives no ETag, which the library needs", reason="NO_ETAG")
    return StoredObject(meta["path"], meta["size"], meta["last_modified"], e_tag)
