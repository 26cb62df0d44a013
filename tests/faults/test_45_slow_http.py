"""HTTP clients that are slow, many, or send what is no HTTP: the endpoints end their connections and serve others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from gateway.http.config import HttpSettings
from gateway.http.server import serve_http
from gateway.web import limited_protocol, request_body
from gateway.web import server as web_server
from tests.support.log_capture import captured_logs

TIMEOUT_SECONDS = 60.0
NOTHING = b"GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
POST = b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def serving(**settings: object) -> AsyncIterator[int]:
    """Yields the port of HTTP endpoints, which answer by themselves all that is asked here."""
    configured = HttpSettings.model_validate({"http_listen": "127.0.0.1:0", "grace_seconds": 0.1, **settings})
    async with serve_http("127.0.0.1:1", configured) as url:
        yield int(url.rpartition(":")[2])


class Caller:
    """A connection that sends bytes as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Caller:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, content: bytes) -> None:
        with suppress(OSError):
            self._writer.write(content)
            await self._writer.drain()

    async def answer(self) -> bytes:
        """Returns all that the server sends until it closes the connection."""
        received = b""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            with suppress(ConnectionError):
                while part := await self._reader.read(1 << 16):
                    received += part
        return received

    async def wait_for(self, content: bytes) -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self._reader.readuntil(content)

    async def close(self) -> None:
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()


async def ask(port: int, content: bytes) -> bytes:
    """Returns the answer to these bytes, by a connection of its own."""
    caller = await Caller.open(port)
    await caller.send(content)
    try:
        return await caller.answer()
    finally:
        await caller.close()


async def ask_until_answered(port: int) -> None:
    """On a busy machine, this client may itself take longer than tests allow."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not (await ask(port, NOTHING)).startswith(b"HTTP/1.1 404 "):
            pass


async def test_heads_that_never_end_are_not_waited_for_while_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limited_protocol, "HEAD_SECONDS", 0.5)
    async with serving() as port, AsyncExitStack() as stack:
        callers = [await Caller.open(port) for _ in range(100)]
        for number, caller in enumerate(callers):
            stack.push_async_callback(caller.close)
            # Nothing, the start of a first head, or of a second one.
            await caller.send((b"", NOTHING[:-2], NOTHING.replace(b"close", b"keep-alive") + b"GET")[number % 3])
        await ask_until_answered(port)
        answers = await asyncio.gather(*(caller.answer() for caller in callers))
    assert set(answers[0::3]) == {b""}
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers[1::3])
    assert all(answer.startswith(b"HTTP/1.1 404 ") and b"HTTP/1.1 408 " in answer for answer in answers[2::3])


async def test_head_that_comes_byte_by_byte_does_not_extend_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limited_protocol, "HEAD_SECONDS", 0.5)
    async with serving() as port:
        caller = await Caller.open(port)
        answering = asyncio.create_task(caller.answer())
        await caller.send(b"GET /none HTTP/1.1\r\n")
        while not answering.done():
            await caller.send(b"x: y\r\n")
            await asyncio.sleep(0.02)
        assert answering.result().startswith(b"HTTP/1.1 408 ")
        await caller.close()


async def test_connections_of_one_host_leave_room_for_others() -> None:
    with captured_logs("json") as log:
        async with serving(max_connections=16) as port, AsyncExitStack() as stack:
            callers = [await Caller.open(port) for _ in range(20)]
            for caller in callers:
                stack.push_async_callback(caller.close)
            answers = await asyncio.gather(*(caller.answer() for caller in callers[14:]))
            assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
            assert all(b"retry-after: " in answer for answer in answers)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
            other = Caller(reader, writer)
            stack.push_async_callback(other.close)
            await other.send(NOTHING)
            assert (await other.answer()).startswith(b"HTTP/1.1 404 ")
            await callers[0].close()
            while not (await ask(port, NOTHING)).startswith(b"HTTP/1.1 404 "):
                pass
    assert log.getvalue().count("too_many_connections") == 1


async def test_requests_of_one_host_leave_room_for_others() -> None:
    async with serving(max_concurrent_streams=8) as port, AsyncExitStack() as stack:
        for _ in range(7):
            caller = await Caller.open(port)
            stack.push_async_callback(caller.close)
            await caller.send(POST + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
            await caller.wait_for(b"100 Continue")  # It waits for the body, and has a place.
        refused = await ask(port, NOTHING)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"one client may have 7 requests at a time" in refused
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        other = Caller(reader, writer)
        stack.push_async_callback(other.close)
        await other.send(NOTHING)
        assert (await other.answer()).startswith(b"HTTP/1.1 404 ")


MALFORMED = {
    "zeros": bytes(100),
    "random": bytes(range(256)) * 100,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    "no version": b"GET /\r\n\r\n",
    "HTTP/9": NOTHING.replace(b"HTTP/1.1", b"HTTP/9.9"),
    "bytes in the path": NOTHING.replace(b"/none", b"/\xff\xfe"),
    "a path that is no UTF-8": NOTHING.replace(b"/none", b"/none/%ff%fe"),
    "NUL in the path": NOTHING.replace(b"/none", b"/none/%00"),
    "dots": NOTHING.replace(b"/none", b"/none/../../../etc/passwd"),
    "another server": NOTHING.replace(b"/none", b"http://example.com/"),
    "a tunnel": NOTHING.replace(b"GET /none", b"CONNECT example.com:443"),
    "any": NOTHING.replace(b"GET /none", b"OPTIONS *"),
    "no host": b"GET /none HTTP/1.1\r\n\r\n",
    "two hosts": NOTHING.replace(b"Host:", b"Host: rebound.example\r\nHost:"),
    "spaces before the colon": NOTHING.replace(b"Host:", b"Host :"),
    "a folded header": NOTHING.replace(b"Connection", b" folded: x\r\nConnection"),
    "a bare line feed": NOTHING.replace(b"\r\nConnection", b"\nX: y\nConnection"),
    "NUL in a header": NOTHING.replace(b"localhost", b"local\0host"),
    "a long head": NOTHING[:-2] + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
    "many headers": NOTHING[:-2] + b"X: y\r\n" * 20_000 + b"\r\n",
    "a long path": NOTHING.replace(b"/none", b"/" + b"x" * 100_000),
    "a negative length": NOTHING[:-2] + b"Content-Length: -1\r\n\r\n",
    "two lengths": NOTHING[:-2] + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a length and chunks": NOTHING[:-2] + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown encoding": NOTHING[:-2] + b"Transfer-Encoding: gzip\r\n\r\n",
    "a huge length": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "a wrong chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a huge chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n",
    "a chunk's long extension": POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000,
    "an upgrade": NOTHING.replace(b"close", b"Upgrade") + b"",
    "a websocket": NOTHING.replace(b"close", b"Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"),
}


async def test_what_is_no_http_is_refused_and_logs_no_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limited_protocol, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(web_server, "KEEPALIVE_SECONDS", 1)
    monkeypatch.setattr(request_body, "READ_SECONDS", 0.5)
    with captured_logs("json") as log:
        async with serving() as port:
            answers = await asyncio.gather(*(ask(port, content) for content in MALFORMED.values()))
            await ask_until_answered(port)
    wrong = {
        name: answer
        for name, answer in zip(MALFORMED, answers, strict=True)
        if answer.startswith(b"HTTP/1.1 5") or b"Traceback" in answer or b"/work/" in answer
    }
    assert wrong == {}
    assert "Traceback" not in log.getvalue()
    assert "Traceback" not in caplog.text
