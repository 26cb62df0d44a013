"""`GET /api/events`: the changes of any number of generations over one connection, as Server-Sent Events."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from dgx_music.client.async_client import AsyncClient
from dgx_music.errors import Cancelled, InvalidArgument, ResourceExhausted, ServiceError, Unavailable
from dgx_music.storage.v1.storage_pb2 import WatchGenerationRequest
from gateway.studio.gateway_calls import stream
from gateway.studio.method_calls import to_json
from gateway.studio.studio_errors import describe
from gateway.web.connected_callers import run_while_connected
from gateway.web.gateway_clients import GatewayClients

MAX_WATCHED = 64
"""Generations that one stream of events tells of."""
HEARTBEAT_SECONDS = 15.0
"""A comment is sent this often, so that neither side takes a silent connection for a dead one."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 4.0
"""Between attempts to reach a gateway that is away; each pause is twice as long as the one before."""


class EventStream:
    """Sends a WatchGenerationResponse in JSON for each change.

    Further events: `end` with an id after the last change of a generation, `problem` with an id and an error, and
    `done` when there is nothing more to tell, after which the page closes the stream. While the gateway is away, it is
    called again; there is a `problem` only for the first failure. A slow reader misses changes, but never the last one.
    """

    def __init__(self, clients: GatewayClients, stopping: asyncio.Event) -> None:
        """`stopping` is set when the server stops."""
        self._clients, self._stopping = clients, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        one = request.path_params.get("id")
        ids = list(dict.fromkeys([one] if one else request.query_params.getlist("id")))
        if not 0 < len(ids) <= MAX_WATCHED:
            raise InvalidArgument("id", f"give 1 to {MAX_WATCHED} ids of generations, not {len(ids)}")
        async with self._clients.client_for(request) as client:
            await run_while_connected(_send_events(client, ids, send), receive, self._stopping)


class _Outbox:
    """What is to be sent: of each generation the newest change, and whatever followed it."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._changes: dict[str, bytes] = {}
        self._followers: dict[str, bytes] = {}
        self._is_closed = False

    def close(self) -> None:
        """Says that nothing more will be put."""
        self._is_closed = True
        self._changed.set()

    @property
    def is_drained(self) -> bool:
        """Whether there is nothing to send, and nothing will be."""
        return self._is_closed and not self._changes and not self._followers

    def put_change(self, id: str, event: bytes) -> None:
        self._changes[id] = event
        self._changed.set()

    def put(self, id: str, event: bytes) -> None:
        self._followers[id] = self._followers.get(id, b"") + event
        self._changed.set()

    async def take(self) -> bytes:
        """Waits for something to send, and returns it; a comment if there is nothing for a while."""
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            return b": still here\n\n"
        return self.take_rest()

    def take_rest(self) -> bytes:
        """Returns what there is."""
        self._changed.clear()
        parts = [
            self._changes.get(id, b"") + self._followers.get(id, b"") for id in {**self._changes, **self._followers}
        ]
        self._changes.clear()
        self._followers.clear()
        return b"".join(parts)


async def _send_events(client: AsyncClient, ids: list[str], send: Send) -> None:
    outbox = _Outbox()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(_watch(client, id, outbox)) for id in ids]
        group.create_task(_send_all(outbox, send))
        await asyncio.wait(watching)
        outbox.close()  # Cancelling would lose what is being sent to a slow reader, which may be the last change.
    await send({"type": "http.response.body", "body": b"event: done\ndata: {}\n\n"})


async def _send_all(outbox: _Outbox, send: Send) -> None:
    while not outbox.is_drained:
        await send({"type": "http.response.body", "body": await outbox.take(), "more_body": True})


async def _watch(client: AsyncClient, id: str, outbox: _Outbox) -> None:
    failures = 0
    while True:
        try:
            async with aclosing(
                stream(client.music.WatchGeneration, WatchGenerationRequest(id=id, with_queue_place=True))
            ) as changes:
                async for change in changes:
                    failures = 0
                    outbox.put_change(id, f"data: {to_json(change)}\n\n".encode())
            outbox.put(id, _event("end", {"id": id}))
            return
        except ServiceError as error:
            may_return = isinstance(error, Unavailable | Cancelled | ResourceExhausted)
            if not failures or not may_return:
                outbox.put(id, _event("problem", {"id": id, "error": describe(error)}))
            if not may_return:
                outbox.put(id, _event("end", {"id": id}))
                return
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failures, 10))
            await asyncio.sleep(max(pause, error.retry_after_seconds or 0.0))
            failures += 1


def _event(name: str, content: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content, ensure_ascii=False)}\n\n".encode()
