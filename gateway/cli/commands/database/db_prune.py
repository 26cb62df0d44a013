"""`dgx-music db prune`: deletes old generations one by one, each with its file first and then its row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio

from dgx_music.storage.v1.storage_pb2 import (
    DeleteGenerationRequest,
    Generation,
    ListGenerationsRequest,
)
from gateway.cli.commands.generation.follow import TERMINAL_STATES
from gateway.cli.display.console import Console
from gateway.cli.display.units import format_size
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS

PAGE_SIZE = 200
"""Generations that are listed and then deleted before the next page is read."""
MAX_CONCURRENT_DELETIONS = 4
"""Small enough that the server keeps responding to other clients."""


async def prune(session: Session, console: Console, age: timedelta, *, confirm: bool) -> int:
    """Deletes the generations that finished longer ago than `age`; without `confirm`, only counts them."""
    before = datetime.now(UTC) - age
    count = file_bytes = 0
    async for page in _finished(session, before):
        for start in range(0, len(page), MAX_CONCURRENT_DELETIONS):
            some = page[start : start + MAX_CONCURRENT_DELETIONS]
            if confirm:
                gone = await asyncio.gather(*(_delete(session, generation) for generation in some))
                some = [generation for generation, is_gone in zip(some, gone, strict=True) if is_gone]
            count += len(some)
            file_bytes += sum(generation.file_size_bytes for generation in some)
    if console.as_json:
        console.print_object({"generations": count, "file_bytes": file_bytes, "is_deleted": confirm})
        return 0
    what = f"{count} generations that finished before {before:%Y-%m-%d %H:%M} UTC, with {format_size(file_bytes)}"
    console.print_line(f"deleted {what}" if confirm else f"would delete {what}; use --yes to delete")
    return 0


async def _finished(session: Session, before: datetime) -> AsyncIterator[list[Generation]]:
    request = ListGenerationsRequest(
        states=TERMINAL_STATES,
        created_before=before,
        page_size=PAGE_SIZE,
    )
    while True:
        page = await session.music.ListGenerations(request, timeout=CALL_TIMEOUT_SECONDS)
        # The server filters by creation; a generation created long ago may have been retried and finished only now.
        yield [one for one in page.generations if one.completed_at.ToDatetime(tzinfo=UTC) < before]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return


async def _delete(session: Session, generation: Generation) -> bool:
    """Returns whether it was deleted; false if another client deleted or retried it in the meantime."""
    try:
        request = DeleteGenerationRequest(id=generation.id, state=generation.state)
        await session.music.DeleteGeneration(request, timeout=CALL_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
            raise
        return False
    return True
