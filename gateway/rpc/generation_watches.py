"""Watches generations at storage on behalf of listeners: one watch for all who listen to the same generation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import Context
from typing import TYPE_CHECKING

import grpc.aio

from dgx_music.errors import FailedPrecondition, NotFound
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from dgx_music.storage.v1.storage_pb2 import Generation, WatchGenerationRequest
from gateway.rpc.service_client import ServiceClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Storage = ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub]


class GenerationWatch:
    """Watches a generation until it has failed, was cancelled or is completed."""

    def __init__(self, storage: Storage, generation_id: str) -> None:
        self.listeners = 0
        self._known = asyncio.Event()
        # In a context of its own: neither the deadline of the first listener nor its identity is that of the others.
        self._task = asyncio.create_task(self._run(storage, generation_id), context=Context())
        self._task.add_done_callback(lambda _: self._known.set())

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
    def cancelling(self, call: grpc.aio.Call) -> Iterator[None]:
        """Cancels the call if there can't be any audio, while the block runs."""

        def on_done(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                call.cancel()

        self._task.add_done_callback(on_done)
        try:
            yield
        finally:
            self._task.remove_done_callback(on_done)

    async def stop(self) -> None:
        """Ends the watch."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, storage: Storage, generation_id: str) -> None:
        request = WatchGenerationRequest(id=generation_id)
        async with aclosing(storage.call_server_stream(storage.stub.WatchGeneration, request)) as states:
            async for state in states:
                _raise_if_terminal_failure(state.generation)
                if state.generation.state == storage_pb2.GENERATION_STATE_COMPLETED:
                    return
                self._known.set()
        raise NotFound("generation", generation_id, "it was deleted")


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
