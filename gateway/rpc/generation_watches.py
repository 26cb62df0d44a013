"""Watches generations at storage on behalf of listeners: one watch for all who listen to the same generation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from contextvars import Context
from typing import TYPE_CHECKING, NamedTuple

import grpc
import grpc.aio

from dgx_music.errors import FailedPrecondition, NotFound, Unavailable
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from dgx_music.storage.v1.storage_pb2 import Generation, WatchGenerationRequest
from gateway.rpc.service_client import ServiceClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Storage = ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub]


PATIENCE_SECONDS = 30.0
"""How long storage may be away while nothing keeps the listeners from hearing what export has."""
RETRY_SECONDS = 0.5


class Route(NamedTuple):
    """Where the audio of a generation is."""

    address: str
    """Of the export server that received the last attempt; empty if there is only one, or none has received any."""
    is_finished: bool
    """Whether the file is finished, which any export server has."""
    attempt: int
    """Number of the last attempt that was claimed. The address may still be that of an earlier one."""


class GenerationWatch:
    """Watches a generation until it has failed, was cancelled or is completed."""

    def __init__(self, storage: Storage, generation_id: str) -> None:
        self.listeners = 0
        self.route = Route("", is_finished=False, attempt=0)
        self._known = asyncio.Event()
        self._away_since = 0.0
        """When storage stopped answering, by the monotonic clock; 0 if it answers."""
        self._followers: set[Callable[[], object]] = set()
        """Called after each change of the route, and when there can't be any audio."""
        # In a context of its own: neither the deadline of the first listener nor its identity is that of the others.
        self._task = asyncio.create_task(self._run(storage, generation_id), context=Context())
        self._task.add_done_callback(lambda _: self._known.set())
        self._task.add_done_callback(lambda _: self._notify())

    @property
    def is_done(self) -> bool:
        """Whether the generation has ended, so that a retry of it needs another watch."""
        return self._task.done()

    async def require_possible(self) -> None:
        """Returns once the generation is known to exist. Raises the error for which it can't have any audio."""
        await self._known.wait()
        self.raise_if_impossible()

    def raise_if_impossible(self) -> None:
        """Raises NotFound if the generation is unknown or was deleted, FailedPrecondition if it has failed or was
        cancelled, and AioRpcError or Unavailable if it can't be watched."""
        if self._task.done():
            self._task.result()

    @contextmanager
    def cancelling(self, call: grpc.aio.Call, holds: Callable[[Route], bool]) -> Iterator[None]:
        """Cancels the call if there can't be any audio, or the route no longer `holds`, while the block runs."""

        def on_change() -> None:
            task = self._task
            has_failed = task.done() and not task.cancelled() and task.exception() is not None
            if has_failed or not holds(self.route):
                call.cancel()

        self._followers.add(on_change)
        try:
            on_change()
            yield
        finally:
            self._followers.discard(on_change)

    async def wait_for_change(self, timeout_seconds: float) -> None:
        """Returns at the next change of the route, or when there can't be any audio, or after this time."""
        changed = asyncio.Event()
        self._followers.add(changed.set)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await changed.wait()
        finally:
            self._followers.discard(changed.set)

    async def stop(self) -> None:
        """Ends the watch."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, storage: Storage, generation_id: str) -> None:
        while True:
            try:
                await self._watch(storage, generation_id)
                return
            except (Unavailable, grpc.aio.AioRpcError) as error:
                is_away = isinstance(error, Unavailable) or error.code() is grpc.StatusCode.UNAVAILABLE
                self._away_since = self._away_since or time.monotonic()
                if not (self._known.is_set() and is_away and time.monotonic() < self._away_since + PATIENCE_SECONDS):
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _watch(self, storage: Storage, generation_id: str) -> None:
        request = WatchGenerationRequest(id=generation_id)
        async with aclosing(storage.call_server_stream(storage.stub.WatchGeneration, request)) as states:
            async for state in states:
                _raise_if_terminal_failure(state.generation)
                is_finished = state.generation.state == storage_pb2.GENERATION_STATE_COMPLETED
                generation = state.generation
                self._set_route(Route(generation.export_address, is_finished, generation.attempt))
                if is_finished:
                    return
                self._known.set()
                self._away_since = 0.0
        raise NotFound("generation", generation_id, "it was deleted")

    def _set_route(self, route: Route) -> None:
        if route != self.route:
            self.route = route
            self._notify()

    def _notify(self) -> None:
        for follower in list(self._followers):
            follower()


class GenerationWatches:
    """The watches of a gateway. Used on the event loop only."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._watches: dict[str, GenerationWatch] = {}

    @asynccontextmanager
    async def join(self, generation_id: str) -> AsyncIterator[GenerationWatch]:
        """Gives the watch of the generation while the block runs."""
        watch = self._watches.get(generation_id)
        if watch is None or watch.is_done:
            watch = self._watches[generation_id] = GenerationWatch(self._storage, generation_id)
        watch.listeners += 1
        try:
            yield watch
        finally:
            watch.listeners -= 1
            if not watch.listeners:
                if self._watches.get(generation_id) is watch:
                    del self._watches[generation_id]
                await watch.stop()


def _raise_if_terminal_failure(generation: Generation) -> None:
    match generation.state:
        case storage_pb2.GENERATION_STATE_FAILED:
            outcome, reason = f"failed: {generation.error_message}", "GENERATION_FAILED"
        case storage_pb2.GENERATION_STATE_CANCELLED:
            outcome, reason = "was cancelled", "GENERATION_CANCELLED"
        case _:
            return
    raise FailedPrecondition(
        f"there is no audio to play: generation {generation.id} {outcome}",
        reason=reason,
        metadata={"id": generation.id, "error_message": generation.error_message},
    )
