"""Which channel calls go through after certificates have been renewed."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from dgx_music.renewing_channel import RenewingChannel


class Recorder:
    """Stands for gRPC's channel, and records in `events` what it is asked for."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events

    def __getattr__(self, kind: str) -> Any:
        return lambda *arguments: lambda request: self.events.append(f"{self.name}.{kind}{arguments}({request})")

    async def close(self, grace: float | None = None) -> None:
        self.events.append(f"{self.name} closed")

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return grpc.ChannelConnectivity.IDLE

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        self.events.append(f"{self.name} waits")

    async def channel_ready(self) -> None:
        self.events.append(f"{self.name} ready")


def recorder(name: str, events: list[str]) -> Any:
    return Recorder(name, events)


KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


async def test_calls_follow_the_renewed_channel_and_the_one_before_the_last_is_closed() -> None:
    events: list[str] = []
    version, names = [1], iter("abc")
    channel = RenewingChannel(lambda: recorder(next(names), events), lambda: version[0])
    methods = [getattr(channel, kind)("/m") for kind in KINDS]
    for name in "abc":
        for kind, method in zip(KINDS, methods, strict=True):
            method(1)
            assert events.pop() == f"{name}.{kind}('/m',)(1)"
        await asyncio.sleep(0)  # For what a renewal closes.
        assert events == (["a closed"] if name == "c" else [])
        version[0] += 1
    events.clear()
    version[0] -= 1
    await channel.channel_ready()
    await channel.wait_for_state_change(channel.get_state())
    async with channel:
        pass
    assert events == ["c ready", "c waits", "b closed", "c closed"]


async def test_previous_channel_is_used_while_a_file_is_missing() -> None:
    events: list[str] = []
    version, names = [1], iter(["a", None, "b"])

    def build() -> Any:
        if (name := next(names)) is None:
            raise FileNotFoundError
        return recorder(name, events)

    channel = RenewingChannel(build, lambda: version[0])
    method = channel.unary_unary("/m")
    version[0] = 2
    for _ in range(2):
        method(1)
    assert events == ["a.unary_unary('/m',)(1)", "b.unary_unary('/m',)(1)"]


def test_files_that_are_missing_at_first_are_an_error() -> None:
    def build() -> Any:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        RenewingChannel(build, lambda: 1)
