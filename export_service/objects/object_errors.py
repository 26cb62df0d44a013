"""Errors of an object storage as service errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from dgx_music.errors import ResourceExhausted, ServiceError, Unavailable

FULL_CODES = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "StorageFull"}
BUSY_CODES = {"SlowDown", "ServiceUnavailable", "TooManyRequests", "RequestLimitExceeded", "Throttling"}
FULL_RETRY_SECONDS = 60.0
DENIED_RETRY_SECONDS = 30.0
RETRY_SECONDS = 5.0
MAX_CAUSE_CHARACTERS = 200
NO_CREDENTIALS = "/latest/api/token"
"""In the error of a client without any: what it tries last is the metadata service of a cloud's machines."""
_CODE = re.compile(r"<Code>\s*(\w{1,60})\s*</Code>")
_STATUS = re.compile(r"status code: (\d{3})")


class ObjectReplaced(Exception):
    """The object is not the version that was asked for, or to be replaced."""


class ObjectMissing(Exception):
    """There is no object with this key."""


@contextmanager
def translate_object_errors(action: str, bucket: str) -> Iterator[None]:
    """Translates the client's errors: ObjectMissing, ObjectReplaced, ResourceExhausted if the storage is full,
    Unavailable otherwise, with a reason that says whether the bucket, the credentials or the storage is at fault.

    `action` says what was being done, for example "writing an object"; it becomes part of the message. Neither the
    addresses nor what else the client's messages contain become part of it.
    """
    from obstore import exceptions

    try:
        yield
    except (exceptions.PreconditionError, exceptions.AlreadyExistsError, exceptions.NotModifiedError) as error:
        raise ObjectReplaced from error
    except (FileNotFoundError, exceptions.BaseError) as error:
        if (translated := _translate(error, action, bucket)) is None:
            raise ObjectMissing from error
        raise translated from error


def _translate(error: Exception, action: str, bucket: str) -> ServiceError | None:
    text = str(error)
    code = found[1] if (found := _CODE.search(text)) else ""
    status = found[1] if (found := _STATUS.search(text)) else ""
    if NO_CREDENTIALS in text:
        return Unavailable(
            f"no credentials for the object storage are set, and this machine has no role (bucket {bucket}, while "
            f"{action}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE",
            reason="OBJECT_STORAGE_CREDENTIALS_MISSING",
            metadata={"bucket": bucket},
            retry_after_seconds=DENIED_RETRY_SECONDS,
        )
    cause = " ".join(part for part in (status, code) if part) or _describe_connection(text)
    metadata = {"bucket": bucket, "status": status, "code": code}
    where = f"bucket {bucket}: {cause}, while {action}"
    if code == "NoSuchBucket":
        return Unavailable(
            f"the bucket of the library does not exist ({where}); create it, or correct DGX_MUSIC_LIBRARY_URL",
            reason="BUCKET_NOT_FOUND",
            metadata=metadata,
            retry_after_seconds=DENIED_RETRY_SECONDS,
        )
    if isinstance(error, FileNotFoundError) or status == "404":
        return None
    if code in FULL_CODES or status == "507":
        return ResourceExhausted(
            f"the object storage is full ({where}); delete files or raise its quota",
            reason="DISK_FULL",
            metadata=metadata,
            retry_after_seconds=FULL_RETRY_SECONDS,
        )
    if status in ("401", "403"):
        return Unavailable(
            f"the object storage denied access ({where}); check the credentials (AWS_ACCESS_KEY_ID and others), and "
            "that they may list, read, write and delete the bucket's objects",
            reason="BUCKET_ACCESS_DENIED",
            metadata=metadata,
            retry_after_seconds=DENIED_RETRY_SECONDS,
        )
    busy = code in BUSY_CODES or status in ("429", "503")
    return Unavailable(
        f"the object storage {'is overloaded' if busy else 'failed'} ({where})",
        reason="OBJECT_STORAGE_BUSY" if busy else "OBJECT_STORAGE_UNAVAILABLE",
        metadata=metadata,
        retry_after_seconds=RETRY_SECONDS,
    )


_SYMPTOMS = {
    "kind: Timeout": "it did not answer in time",
    "Connection refused": "the connection was refused",
    "dns error": "its name is not known",
    "ertificate": "its certificate is not trusted",
    "InvalidContentType": "it does not speak TLS",
    "kind: Interrupted": "the connection was cut",
    "kind: Connect": "no connection",
}


def _describe_connection(text: str) -> str:
    """Returns what is known of an error that is not the storage's answer."""
    return next((description for symptom, description in _SYMPTOMS.items() if symptom in text), "no valid answer")
