"""Whether the bucket can be written, for health checks and for `dgx-music doctor`."""

from __future__ import annotations

import time
import uuid

from dgx_music.errors import FailedPrecondition, Unavailable
from export_service.objects.bucket import Bucket
from export_service.objects.object_errors import ObjectMissing, ObjectReplaced

PROBE_KEY = "probe"
"""Of the object that is written to find out. It is not part of the library."""
CHECK_INTERVAL_SECONDS = 30.0
"""How long a success counts: every request costs money."""
PROBE_DATA = b"dgx-music\n"


class WriteCheck:
    """Writes an object now and then. Its methods block: call them in a thread."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._succeeded_at: float | None = None
        self._failures = 0
        """Those of the bucket up to the last success."""

    def run(self) -> None:
        """Raises Unavailable or ResourceExhausted if an object can't be written. After a success, does nothing for half
        a minute, unless another request fails.
        """
        is_recent = self._succeeded_at is not None and time.monotonic() - self._succeeded_at < CHECK_INTERVAL_SECONDS
        if is_recent and self._failures == self._bucket.failures:
            return
        self._succeeded_at = None
        failures = self._bucket.failures
        self._bucket.put_bytes(PROBE_KEY, PROBE_DATA, is_check=True)
        self._succeeded_at, self._failures = time.monotonic(), failures


def probe(bucket: Bucket) -> None:
    """Lists, writes, reads, replaces under a condition and deletes an object. Raises an error that names what failed:
    Unavailable, ResourceExhausted, or FailedPrecondition if the storage lacks what the library needs.
    """
    key = f"{PROBE_KEY}-{uuid.uuid4()}"
    bucket.peek(key)
    bucket.put_bytes(key, PROBE_DATA, is_check=True)
    try:
        stored, _ = bucket.head(key)
        if bucket.read_range(stored, 0, len(PROBE_DATA)) != PROBE_DATA:
            raise Unavailable("the object storage gave back something else than was written", reason="FILE_DAMAGED")
        if not bucket.refuses_to_replace_another(key, PROBE_DATA):
            raise FailedPrecondition(
                "the object storage ignores If-Match, by which several servers are kept from undoing each other's "
                "changes; use one that supports conditional writes",
                reason="CONDITIONAL_WRITES_MISSING",
            )
    except (ObjectMissing, ObjectReplaced):
        raise Unavailable(
            "the object storage does not find what has just been written; it has to be strongly consistent",
            reason="OBJECT_STORAGE_UNAVAILABLE",
        ) from None
    finally:
        bucket.delete([key])
