"""Calls of the gateway: they have deadlines, are retried where that is safe, and raise `dgx_music.errors`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc
import grpc.aio

from dgx_music import channel
from dgx_music.address import DEFAULT_ADDRESS, UNIX_PREFIX
from dgx_music.client.config import ClientConfig
from dgx_music.client.generation_options import name_argument
from dgx_music.error_status import status_of, to_exception
from dgx_music.errors import (
    Aborted,
    Cancelled,
    ConnectionLost,
    DeadlineExceeded,
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.response_stream import read_stream

STREAM_TIMEOUT_SECONDS = 24 * 3600.0
"""Deadline of a stream, which may wait for the longest audio and then play it in real time."""
ATTEMPTS = 4
"""Of a call that is safe to repeat."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.0
"""Between attempts; each pause is twice as long as the one before."""

SLEEP_ACCURACY_SECONDS = 0.01

_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
"""How gRPC itself reports a connection that could not be made or broke."""

Request = TypeVar("Request")
Response = TypeVar("Response")


@asynccontextmanager
async def connect(address: str = DEFAULT_ADDRESS) -> AsyncIterator[gateway_pb2_grpc.MusicServiceAsyncStub]:
    """Yields a stub with the methods of `MusicService` (gateway.proto). `address` is `host:port` or `unix:/path`.

    Raises ValueError if it is neither. Most programs use `dgx_music.AsyncClient` or `dgx_music.Client` instead.
    """
    async with channel.connect(address) as gateway_channel:
        yield gateway_pb2_grpc.MusicServiceStub(gateway_channel)


class Connection:
    """Calls the gateway of a configuration. It belongs to the event loop on which it is first used."""

    def __init__(self, config: ClientConfig, *, timeout: float, wait_if_busy: float, reconnect_timeout: float) -> None:
        self.config, self.timeout = config, timeout
        self._wait_if_busy, self._reconnect_timeout = wait_if_busy, reconnect_timeout
        self._channel: grpc.aio.Channel | None = None
        self._stub: gateway_pb2_grpc.MusicServiceAsyncStub | None = None
        self._is_closed = False

    @property
    def music(self) -> gateway_pb2_grpc.MusicServiceAsyncStub:
        """The stub of the gateway. Its calls raise AioRpcError, and have no deadline of their own."""
        if self._stub is None:
            if self._is_closed:
                raise RuntimeError("the client is closed; create a new one")
            self._channel = channel.connect(self.config.address, self.config.credentials)
            self._stub = gateway_pb2_grpc.MusicServiceStub(self._channel)
        return self._stub

    async def close(self) -> None:
        """Ends all calls. Closing twice does nothing."""
        self._is_closed, self._stub = True, None
        if self._channel is not None:
            closing, self._channel = self._channel, None
            await closing.close()

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        is_repeatable: bool = False,
        timeout: float | None = None,
    ) -> Response:
        """Sends a request and returns the response.

        `is_repeatable` is for a call that gRPC does not repeat by itself, but that is safe to repeat with the same
        request, e.g. a creation with a request_id. `timeout` in seconds replaces that of the client.
        """
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        patience = self._wait_if_busy
        failures = 0
        while True:
            try:
                return await method(request, timeout=max(0.0, deadline - time.monotonic()))
            except grpc.aio.AioRpcError as error:
                exception = self.translate(error)
                delay = exception.retry_after_seconds or 0.0
                if isinstance(exception, ResourceExhausted) and 0 < delay <= patience:
                    patience -= delay
                    deadline += delay
                elif isinstance(exception, Unavailable) and is_repeatable and failures < ATTEMPTS - 1:
                    failures += 1
                    delay = _backoff(failures)
                else:
                    raise exception from error
            await asyncio.sleep(delay)

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        deadline: float | None = None,
    ) -> AsyncGenerator[Response, None]:
        """Sends a request and yields the responses. Closing the generator cancels the call.

        `deadline` is a time of the monotonic clock. Raises DeadlineExceeded when it has passed.
        """
        timeout = STREAM_TIMEOUT_SECONDS if deadline is None else deadline - time.monotonic()
        if timeout <= 0:  # With no time left, gRPC may still make the call.
            raise DeadlineExceeded("the deadline of this call has passed", reason="TIMEOUT")
        call = method(request, timeout=timeout)
        try:
            async for response in read_stream(call):
                yield response
        except grpc.aio.AioRpcError as error:
            raise self.translate(error) from error
        finally:
            call.cancel()

    def reconnection(self, deadline: float | None = None) -> Reconnection:
        """Returns the patience of one stream with a server that is lost."""
        return Reconnection(self._reconnect_timeout, deadline)

    def translate(self, error: grpc.aio.AioRpcError) -> ServiceError:
        """Returns the error as one of `dgx_music.errors`, with the names of this API's arguments."""
        exception = to_exception(error)
        if status_of(error) is None and error.code() in _BROKEN:
            return _connection_lost(self.config, error)
        if isinstance(exception, InvalidArgument):
            return name_argument(exception)
        return exception


class Reconnection:
    """Waits while a server is lost or overloaded, up to a limit that starts anew with each response."""

    def __init__(self, limit_seconds: float, deadline: float | None) -> None:
        self._limit, self._deadline = limit_seconds, deadline
        self.responded()

    def responded(self) -> None:
        """Records that the server is there."""
        self._failures, self._lost_at = 0, 0.0

    async def wait(self, error: ServiceError) -> None:
        """Waits before another attempt. Raises `error` if no other attempt would help, or the limit is reached."""
        delay = error.retry_after_seconds or 0.0
        # Aborted: this attempt at the generation has ended, and there will be another.
        if not isinstance(error, Unavailable | Cancelled | Aborted) and not (
            isinstance(error, ResourceExhausted) and delay
        ):
            raise error
        now = time.monotonic()
        self._failures += 1
        if self._failures == 1:
            self._lost_at = now
        pause = delay + _backoff(self._failures)
        if self._deadline is not None and now + pause >= self._deadline:
            # The next attempt ends with DeadlineExceeded. A sleep may end a little early.
            pause = max(0.0, self._deadline - now) + SLEEP_ACCURACY_SECONDS
        elif now + delay >= self._lost_at + self._limit:
            raise error
        await asyncio.sleep(pause)


def _backoff(failures: int) -> float:
    """Returns the pause in seconds after this many failures: at random, so that the clients of a server that restarts
    do not all come back at once."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 10))
    return random.uniform(longest / 2, longest)


def _connection_lost(config: ClientConfig, error: grpc.aio.AioRpcError) -> ConnectionLost:
    """Describes why no server answered, without gRPC's own text, which is the exception's `__cause__`."""
    details, credentials = (error.details() or "").lower(), config.credentials
    if "certificate verify failed" in details or "certificate_verify_failed" in details:
        problem = (
            "its certificate is not from the certificate authority in tls_ca (DGX_MUSIC_TLS_CA), is not for this "
            "host name, or has expired"
        )
    elif "backend unhealthy" in details:
        problem = "each of them reports that it is NOT_SERVING: something is missing that it needs; its log says what"
        return _lost(config, problem)
    elif "handshake" in details:
        problem = "the TLS handshake failed; leave out tls_ca (DGX_MUSIC_TLS_CA) if the server does not use TLS"
    else:
        problem = (
            "the connection failed or was lost; start the server with `dgx-music serve`, or give its address as "
            "Client(address) or DGX_MUSIC_GATEWAY_ADDRESS"
        )
    if credentials.ca is None and not config.address.startswith(UNIX_PREFIX):
        problem += "; set tls_ca (DGX_MUSIC_TLS_CA) if the server uses TLS"
    elif credentials.ca is not None and credentials.certificate is None:
        problem += "; set tls_certificate and tls_key if the server asks for a client certificate"
    return _lost(config, problem)


def _lost(config: ClientConfig, problem: str) -> ConnectionLost:
    return ConnectionLost(
        f"no answer from the server at {config.address}: {problem}",
        reason="CONNECTION_LOST",
        metadata={"address": config.address},
    )
