"""The timeout of a downstream call."""

from __future__ import annotations

from service_runtime.rpc import deadlines


async def test_no_time_is_left_after_the_deadline() -> None:
    deadlines.set_deadline(-1)
    assert deadlines.time_left(60) == 0
