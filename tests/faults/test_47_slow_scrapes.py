"""Clients of the metrics that send nothing, or a byte now and then: they take a few threads, and not for long."""

from __future__ import annotations

import asyncio
import threading
import urllib.request
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from service_runtime.observability import metrics_endpoint
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.processes import free_ports
from tests.support.scripted_service import ScriptedService


@pytest.mark.slow
async def test_slow_clients_take_few_threads_and_others_get_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_endpoint, "REQUEST_SECONDS", 0.4)
    monkeypatch.setattr(metrics_endpoint, "MAX_SCRAPES", 2)
    (port,) = free_ports(1)
    settings = Settings(data_dir=tmp_path, grace_seconds=0.1, metrics_port=port)
    async with serve_services([ScriptedService()], ["127.0.0.1:0"], settings), AsyncExitStack() as stack:
        before = threading.active_count()
        readers = []
        for number in range(8):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.push_async_callback(close, writer)
            writer.write((b"", b"GET /metrics HTTP/1.1\r\nHost: ")[number % 2])
            readers.append(reader)
        page = asyncio.create_task(asyncio.to_thread(read_page, f"http://127.0.0.1:{port}/metrics"))
        ended = asyncio.gather(page, *map(read_to_end, readers))
        most = 0
        async with asyncio.timeout(60):
            while not ended.done():
                most = max(most, threading.active_count())
                await asyncio.sleep(0)
        assert b"process_resident_memory_bytes" in await page
        # Of two requests and of their timers, the server's own and the test's.
        assert most <= before + 4 + 2


async def read_to_end(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        await reader.read()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def read_page(url: str) -> bytes:
    """Tries again if it was slow itself, as on a busy machine."""
    while True:
        with suppress(OSError), urllib.request.urlopen(url, timeout=60) as response:
            content: bytes = response.read()
            return content
