"""A listener who leaves while a chunk is on its way costs no memory: gRPC never frees what arrives for a read that was
cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import psutil

from dgx_music.channel import CHANNEL_OPTIONS
from dgx_music.response_stream import read_stream

MESSAGE = bytes(1 << 16)
LEAVING = 300
"""Listeners. If each cost one message, that would be 20 MB."""
MAX_GROWTH_BYTES = 6_000_000


class _EndlessAudio(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def stream(request: bytes, context: object) -> AsyncIterator[bytes]:
            while True:
                yield MESSAGE

        return grpc.unary_stream_rpc_method_handler(stream)


async def _listen_and_leave(channel: grpc.aio.Channel) -> None:
    heard = asyncio.Event()

    async def listen() -> None:
        async for _ in read_stream(channel.unary_stream("/audio/Stream")(b"")):
            heard.set()

    listener = asyncio.create_task(listen())
    await heard.wait()
    listener.cancel()  # It waits for the next message.
    await asyncio.gather(listener, return_exceptions=True)


async def test_listener_who_leaves_while_a_chunk_arrives_costs_no_memory(tmp_path: Path) -> None:
    server = grpc.aio.server(handlers=[_EndlessAudio()], options=CHANNEL_OPTIONS)
    address = f"unix:{tmp_path}/s"
    server.add_insecure_port(address)
    await server.start()
    own = psutil.Process()
    try:
        async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:
            for _ in range(LEAVING // 3):
                await _listen_and_leave(channel)
            before = own.memory_full_info().uss
            for _ in range(LEAVING):
                await _listen_and_leave(channel)
            assert own.memory_full_info().uss - before < MAX_GROWTH_BYTES
    finally:
        await server.stop(0)
