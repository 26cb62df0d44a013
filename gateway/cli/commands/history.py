"""`dgx-music history`: what has been generated, newest first."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from dgx_music.storage.v1.storage_pb2 import ListGenerationsRequest
from gateway.cli.display.console import (
    Console,
    escape_text,
    format_local_time,
    format_rating,
    format_styled_state,
)
from gateway.cli.display.units import parse_time
from gateway.cli.session.pagination import fetch_first
from gateway.cli.session.runner import Session


def parse_period(since: str, until: str) -> tuple[Timestamp | None, Timestamp | None]:
    """Returns the times of --since and --until, None for one that is not given. Raises CommandError."""
    return (
        Timestamp(seconds=int(parse_time(since, "--since").timestamp())) if since else None,
        Timestamp(seconds=int(parse_time(until, "--until", is_end=True).timestamp())) if until else None,
    )


async def history(
    session: Session, console: Console, request: ListGenerationsRequest, *, limit: int, ids_only: bool
) -> int:
    """Prints the newest `limit` generations that match the filters of the request, and says if there are more."""
    found = await fetch_first(session.music.ListGenerations, request, lambda page: page.generations, limit + 1)
    shown = found[:limit]
    if console.as_json:
        for generation in shown:
            console.print_message(generation)
    elif ids_only:
        for generation in shown:
            console.print_line(generation.id)
    else:
        console.print_table(
            (
                ("id", False),
                ("state", False),
                ("length", False),
                ("model", False),
                ("created", False),
                ("rating", False),
                ("prompt", True),
            ),
            (
                (
                    generation.id,
                    format_styled_state(generation),
                    f"{generation.duration_seconds:g} s",
                    escape_text(generation.model_name),
                    format_local_time(generation.created_at),
                    format_rating(generation),
                    escape_text(generation.prompt),
                )
                for generation in shown
            ),
            none="there are no such generations",
        )
    if len(found) > limit:
        console.print_notice(f"there are more; show them with --limit {10 * limit}")
    return 0
