"""`dgx-music db prune`: retention, through the same call that deletes one generation: its file first, then its row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio

from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_CANCELLED,
    GENERATION_STATE_COMPLETED,
    GENERATION_STATE_FAILED,
    DeleteGenerationRequest,
    Generation,
    ListGenerationsRequest,
)
from gateway.cli.display.console import Screen
from gateway.cli.session.runner import CALL_SECONDS, Session

PAGE = 200
"""Looked at, then deleted, before the next are looked for."""
AT_ONCE = 4
"""Deletions on their way: the server's other callers find it free in between."""


async def prune(session: Session, screen: Screen, age: timedelta, *, really: bool) -> int:
    """Deletes what finished longer ago than `age`, or only says how much that is."""
    before = datetime.now(UTC) - age
    count = file_bytes = 0
    async for page in _finished(session, before):
        for start in range(0, len(page), AT_ONCE):
            some = page[start : start + AT_ONCE]
            if really:
                gone = await asyncio.gather(*(_delete(session, generation) for generation in some))
                some = [generation for generation, is_gone in zip(some, gone, strict=True) if is_gone]
            count += len(some)
            file_bytes += sum(generation.file_size_bytes for generation in some)
    what = f"{count} generations that finished before {before:%Y-%m-%d %H:%M} UTC, with {file_bytes / 1e6:.1f} MB"
    screen.out.print(f"deleted {what}" if really else f"would delete {what}; --yes does it", markup=False)
    return 0


async def _finished(session: Session, before: datetime) -> AsyncIterator[list[Generation]]:
    request = ListGenerationsRequest(
        states=[GENERATION_STATE_COMPLETED, GENERATION_STATE_FAILED, GENERATION_STATE_CANCELLED],
        created_before=before,
        page_size=PAGE,
    )
    while True:
        page = await session.music.ListGenerations(request, timeout=CALL_SECONDS)
        # What was made long ago may have been tried again since, and finished but now.
        yield [one for one in page.generations if one.completed_at.ToDatetime(tzinfo=UTC) < before]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return


async def _delete(session: Session, generation: Generation) -> bool:
    """Whether it went; not, where somebody else deleted it, or has it tried again."""
    try:
        request = DeleteGenerationRequest(id=generation.id, state=generation.state)
        await session.music.DeleteGeneration(request, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
            raise
        return False
    return True
