"""HTTP clients that leave or stall at any stage, a server that is full, and one that stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

import pytest

from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.http.config import HttpSettings
from gateway.http.server import serve_http
from gateway.web import request_body
from tests.support.embedded_services import EmbeddedServices
from tests.support.log_capture import captured_logs

LIVE = {"input": "techno", "response_format": "wav", "stream": True, "duration_seconds": 3600}


@asynccontextmanager
async def serving(services: EmbeddedServices, **settings: object) -> AsyncIterator[int]:
    """Yields the port of HTTP endpoints that are served while the block runs."""
    configured = HttpSettings.model_validate({"http_listen": "127.0.0.1:0", "grace_seconds": 1, **settings})
    async with serve_http(services.address, configured) as url:
        yield int(url.rpartition(":")[2])


class Caller:
    """A connection over which a request has been sent."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def head(self) -> tuple[int, dict[str, str]]:
        """Returns the status and the headers of the response."""
        lines = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 60)).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def error(self) -> tuple[int, dict[str, str], dict[str, str]]:
        """Returns the status, the headers and the error of the response."""
        status, headers = await self.head()
        content = await self._reader.readexactly(int(headers["content-length"]))
        return status, headers, json.loads(content)["error"]


@asynccontextmanager
async def requesting(port: int, line: str, content: bytes = b"", *, missing_bytes: int = 0) -> AsyncIterator[Caller]:
    """Sends a request, of whose body some bytes are missing, and leaves with the block."""
    length = f"Content-Type: application/json\r\nContent-Length: {len(content) + missing_bytes}\r\n" if content else ""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{length}\r\n".encode() + content)
    try:
        yield Caller(reader)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def posting(port: int, body: object, *, missing_bytes: int = 0) -> AbstractAsyncContextManager[Caller]:
    return requesting(port, "POST /v1/audio/speech", json.dumps(body).encode(), missing_bytes=missing_bytes)


async def states(services: EmbeddedServices) -> list[int]:
    listed = await services.music.ListGenerations(storage.ListGenerationsRequest(), timeout=60)
    return [one.state for one in listed.generations]


async def test_server_that_is_full_says_so_as_openai_does_and_still_tells_its_health(
    all_services: EmbeddedServices,
) -> None:
    async with serving(all_services, max_concurrent_streams=1) as port, posting(port, LIVE) as listening:
        assert (await listening.head())[0] == 200
        async with posting(port, {"input": "house"}) as refused:
            status, headers, error = await refused.error()
        assert (status, error["type"], error["code"]) == (503, "server_error", "server_busy")
        assert int(headers["retry-after"]) >= 1
        async with requesting(port, "GET /health") as asking:
            assert (await asking.head())[0] == 200


async def test_body_that_never_ends_is_not_waited_for(
    all_services: EmbeddedServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "READ_SECONDS", 0.2)
    async with serving(all_services) as port, posting(port, {"input": "house"}, missing_bytes=10) as stalled:
        status, _, error = await stalled.error()
    assert (status, error["code"]) == (408, "request_timeout")
    assert await states(all_services) == []


async def test_caller_who_leaves_before_the_end_of_the_body_is_no_error(all_services: EmbeddedServices) -> None:
    with captured_logs("json") as log:
        async with serving(all_services) as port:
            async with posting(port, {"input": "house"}, missing_bytes=10):
                pass
            while "http_served" not in log.getvalue():  # Nothing else tells that the server has noticed.
                await asyncio.wait([asyncio.ensure_future(states(all_services))])
    assert "http_request_broke_off" not in log.getvalue()


async def test_server_that_stops_ends_its_requests_in_time_and_cancels_their_music(
    all_services: EmbeddedServices,
) -> None:
    async with AsyncExitStack() as stack:
        async with serving(all_services, grace_seconds=1) as port:
            listening = await stack.enter_async_context(posting(port, LIVE))
            waiting = await stack.enter_async_context(posting(port, {**LIVE, "stream": False}))
            assert (await listening.head())[0] == 200
            while len(await states(all_services)) < 2:
                pass
        status, _, error = await waiting.error()
        assert (status, error["code"]) == (503, "shutting_down")
    assert await states(all_services) == [storage.GENERATION_STATE_CANCELLED] * 2
