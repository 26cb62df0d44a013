"""`dgx-music comparisons`: how takes were ranked, newest first."""

from __future__ import annotations

from collections.abc import Iterable

import grpc.aio

from dgx_music.storage.v1.storage_pb2 import Comparison, Generation, GetGenerationRequest, ListComparisonsRequest
from gateway.cli.display.console import Console, escape_text, format_local_time
from gateway.cli.session.pagination import fetch_first
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS


async def comparisons(session: Session, console: Console, generation_id: str, *, limit: int) -> int:
    """Prints the newest `limit` comparisons, of one generation if there is an id, with a row for each take."""
    request = ListComparisonsRequest(generation_id=generation_id)
    found = await fetch_first(session.music.ListComparisons, request, lambda page: page.comparisons, limit + 1)
    shown = found[:limit]
    if console.as_json:
        for comparison in shown:
            console.print_message(comparison)
    else:
        takes = await _fetch_takes(session, {one for comparison in shown for one in comparison.generation_ids})
        console.print_table(
            (("saved", False), ("blind", False), ("place", False), ("id", False), ("take", False), ("prompt", True)),
            (row for comparison in shown for row in _rows(comparison, takes)),
            none="no ranking has been saved; `dgx-music studio` compares takes",
        )
    if len(found) > limit:
        console.print_notice(f"there are more; show them with --limit {10 * limit}")
    return 0


def _rows(comparison: Comparison, takes: dict[str, Generation]) -> Iterable[tuple[str, ...]]:
    for place, one in enumerate(comparison.generation_ids, 1):
        take = takes.get(one, Generation())
        is_first = place == 1
        yield (
            format_local_time(comparison.create_time) if is_first else "",
            "blind" if is_first and comparison.blind else "",
            f"{place}",
            one,
            escape_text(f"{take.model_name} seed {take.seed}") if take.id else "",
            escape_text(take.prompt),
        )


async def _fetch_takes(session: Session, ids: set[str]) -> dict[str, Generation]:
    """Returns the generations with these ids, but those that have been deleted meanwhile."""
    takes: dict[str, Generation] = {}
    for one in ids:
        try:
            response = await session.music.GetGeneration(GetGenerationRequest(id=one), timeout=CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        else:
            takes[one] = response.generation
    return takes
