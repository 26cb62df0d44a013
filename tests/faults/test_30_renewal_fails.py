"""Fault 30: the renewal of a lease fails unexpectedly, and not because storage is away. The attempt fails with the
reason; it is not handed back for ever as if the server were shutting down."""

from __future__ import annotations

from pathlib import Path

from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.failpoints import armed
from tests.support.service_stack import ServiceStack
from tests.support.tone_model import Gate


async def test_attempt_whose_renewal_fails_unexpectedly_ends_with_the_reason(tmp_path: Path) -> None:
    stack = ServiceStack(tmp_path)
    try:
        await stack.start("storage", "export", "generation")
        gate = stack.model.at["a", 3] = Gate()
        with armed("generation.before_renewal:raise"):
            failed = await stack.wait_until_ended(await stack.create())
        gate.open()
        assert failed.state == pb.GENERATION_STATE_FAILED
        assert failed.error_message == "an unexpected error occurred: RuntimeError"
        await stack.model.release_of("a")
    finally:
        await stack.stop_all()
