"""uvicorn's HTTP, with limits on connections and on the time that a request may take to arrive.

uvicorn waits without end for the first request of a connection, and for the rest of the head of any.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service_runtime.observability.logging import get_logger
from service_runtime.observability.repeated_events import RepeatedEvents

log = get_logger(__name__)

HEAD_SECONDS = 10.0
"""How long a connection may take to send the head of a request, once it has begun to or was opened."""
MAX_HEAD_BYTES = 16_384
OTHERS_SHARE = 8
"""Of the connections, one in so many is left to others by any one host."""

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

_refusals = RepeatedEvents()


class ConnectionCount:
    """The connections of a server, by host."""

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self._hosts: Counter[str] = Counter()

    def add(self, host: str) -> bool:
        """Counts a connection; returns whether it fits."""
        fits = (
            self._hosts.total() < self.max_connections
            and self._hosts[host] < self.max_connections - self.max_connections // OTHERS_SHARE
        )
        self._hosts[host] += 1
        return fits

    def remove(self, host: str) -> None:
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]


class LimitedProtocol(H11Protocol):
    """One connection."""

    def __init__(self, count: ConnectionCount, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._count, self._host = count, ""
        self._head_timer: asyncio.TimerHandle | None = None
        self._has_begun = False
        """Whether a part of a head has arrived."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._host = self.client[0] if self.client else ""
        if self._count.add(self._host):
            self._wait_for_head()
            return
        if (skipped := _refusals.admit("connections")) is not None:
            log.warning("too_many_connections", host=self._host, not_logged=skipped)
        transport.write(BUSY)
        transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._has_begun = True
            self._wait_for_head()
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.trailing_data[0]:  # The start of another head has come with the last request.
            self._has_begun = True
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._count.remove(self._host)
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._end)

    def _stop_waiting(self) -> None:
        self._has_begun = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end(self) -> None:
        if self._has_begun:
            self.transport.write(TOO_LATE)
        self.transport.close()
