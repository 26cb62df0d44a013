"""Answers WatchGeneration: the generation after each change, with its place in the queue if that was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from dgx_music.storage.v1 import storage_pb2
from storage_service.async_store import Store
from storage_service.db.models import Generation
from storage_service.domain.sharing.queue_place import QueuePlace, find_place
from storage_service.rpc import converters
from storage_service.states import GenerationStatus

PLACE_SECONDS = 2.0
"""How often the place of a waiting generation is looked up. Changes of the others wake nobody: of n that wait, each
would wake all, and look up n places."""


async def watch_generation(
    store: Store, request: storage_pb2.WatchGenerationRequest
) -> AsyncGenerator[storage_pb2.WatchGenerationResponse, None]:
    """Yields the responses, until the generation has finished or is deleted. Raises what `Store.watch` does."""
    async with aclosing(store.watch(request.id)) as snapshots:
        if not request.with_queue_place:
            async for row in snapshots:
                yield _response(row, None)
            return
        async with aclosing(_with_places(store, snapshots)) as places:
            async for row, place in places:
                yield _response(row, place)


async def _with_places(
    store: Store, snapshots: AsyncGenerator[Generation, None]
) -> AsyncGenerator[tuple[Generation, QueuePlace | None], None]:
    """Yields each snapshot with its place, and again when the place has changed."""
    following = asyncio.ensure_future(anext(snapshots))
    last: tuple[Generation, QueuePlace | None] | None = None
    try:
        while True:
            is_waiting = last is not None and last[0].status is GenerationStatus.PENDING
            done, _ = await asyncio.wait({following}, timeout=PLACE_SECONDS if is_waiting else None)
            if done:
                row = await following
                following = asyncio.ensure_future(anext(snapshots))
            else:
                assert last is not None
                row = last[0]
            place = await _find_place(store, row)
            if done or (row, place) != last:
                last = row, place
                yield last
    except StopAsyncIteration:
        return
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _find_place(store: Store, row: Generation) -> QueuePlace | None:
    return await store.read(lambda s: find_place(s, row)) if row.status is GenerationStatus.PENDING else None


def _response(row: Generation, place: QueuePlace | None) -> storage_pb2.WatchGenerationResponse:
    response = storage_pb2.WatchGenerationResponse(generation=converters.generation_to_proto(row))
    if place is not None:
        response.queue_place.position, response.queue_place.wait_seconds = place.position, place.wait_seconds
    return response
