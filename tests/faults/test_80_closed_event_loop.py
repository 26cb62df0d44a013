"""A program that leaves a stream and ends its event loop disturbs no other event loop of its process: gRPC hands the
status of a call to any of them, and that one would log that the call's own loop is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio

from dgx_music.channel import CHANNEL_OPTIONS, connect
from dgx_music.response_stream import finish_calls

LOOPS = 150
"""Without the wait, about one loop in twelve was closed too early."""


class _EndlessNews(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def stream(request: bytes, context: object) -> AsyncIterator[bytes]:
            while True:
                yield b"news"

        return grpc.unary_stream_rpc_method_handler(stream)


async def _read_and_leave(address: str) -> None:
    async with connect(address) as channel:
        call = channel.unary_stream("/news/Watch")(b"")
        await call.read()
        call.cancel()
    await finish_calls()


async def test_calls_end_before_their_event_loop(tmp_path: Path) -> None:
    logged: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: logged.append(context))
    server = grpc.aio.server(handlers=[_EndlessNews()], options=CHANNEL_OPTIONS)
    address = f"unix:{tmp_path}/s"
    server.add_insecure_port(address)
    await server.start()
    try:
        for _ in range(LOOPS):
            await asyncio.to_thread(lambda: asyncio.run(_read_and_leave(address)))
    finally:
        await server.stop(0)
    assert logged == []
