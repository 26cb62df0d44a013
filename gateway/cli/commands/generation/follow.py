"""Follows generations until they finish, cancels them, and reports their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import grpc.aio

from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_CANCELLED,
    GENERATION_STATE_COMPLETED,
    GENERATION_STATE_FAILED,
    CancelGenerationRequest,
    Generation,
    WatchGenerationRequest,
)
from gateway.cli.display.braille_waveform import print_waveform
from gateway.cli.display.console import Console, escape_text
from gateway.cli.display.summary import Fields, is_synthesized, licence_fields, summary_fields
from gateway.cli.session.command_errors import CommandError, format_error
from gateway.cli.session.files.cover_file import add_cover
from gateway.cli.session.files.output_files import download
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS, STREAM_TIMEOUT_SECONDS
from service_runtime.failpoints import failpoint

TERMINAL_STATES = (GENERATION_STATE_COMPLETED, GENERATION_STATE_FAILED, GENERATION_STATE_CANCELLED)


def add_way_on(error: grpc.aio.AioRpcError, generation_ids: Sequence[str]) -> None:
    """Notes in the error of a lost server how to go on with these generations."""
    others = f", and likewise with {len(generation_ids) - 1} more in `dgx-music history`" * (len(generation_ids) > 1)
    error.add_note(f"go on with: dgx-music watch {generation_ids[0]}{others}")


async def wait_until_finished(
    session: Session, generation_id: str, on_change: Callable[[Generation], None]
) -> Generation:
    """Returns the generation in its terminal state; `on_change` is called with each earlier one too.

    Raises CommandError if it was deleted.
    """
    generation = None
    request = WatchGenerationRequest(id=generation_id)
    async for response in session.music.WatchGeneration(request, timeout=STREAM_TIMEOUT_SECONDS):
        generation = response.generation
        on_change(generation)
    if generation is None or generation.state not in TERMINAL_STATES:
        raise CommandError(f"generation {generation_id} was deleted before it finished")
    return generation


async def cancel_generations(session: Session, console: Console, generations: Sequence[Generation]) -> None:
    """Cancels those that have not finished, and says so."""
    for generation in generations:
        if await cancel_unfinished(session, generation.id):
            console.print_notice(f"cancelled generation {generation.id}")
        else:
            console.print_notice(f"generation {generation.id} had already finished")


async def cancel_unfinished(session: Session, generation_id: str) -> bool:
    """Cancels the generation. Returns False if it had already finished."""
    try:
        await session.music.CancelGeneration(CancelGenerationRequest(id=generation_id), timeout=CALL_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        return False
    return True


async def report_result(session: Session, console: Console, generation: Generation, output: Path | None) -> int:
    """Prints the result of a finished generation, saves its file to `output`, and returns the exit status."""
    if generation.state != GENERATION_STATE_COMPLETED:
        result = "was cancelled"
        if generation.state == GENERATION_STATE_FAILED:
            result = f"failed: {generation.error_message}; to try again, run: dgx-music retry {generation.id}"
        return console.print_error(f"generation {generation.id} {result}")
    try:
        copy = None if output is None else await download(session, generation.id, output)
    except CommandError as error:
        raise CommandError(f"{error}; the generation is kept: dgx-music download {generation.id} -o FILE") from error
    if not console.as_json:
        await _print_summary(session, console, generation, copy)
    return 0


async def add_cover_to(session: Session, console: Console, generation: Generation, cover: bytes) -> int:
    """Puts the cover into the finished file, and returns the exit status. The file is kept if that fails."""
    try:
        await add_cover(session, generation, cover)
    except grpc.aio.AioRpcError as error:
        reason, _ = format_error(error)
        retry = f"dgx-music files tag {generation.id} --cover IMAGE"
        failure = CommandError(f"failed to add the cover: {reason}; to try again, run: {retry}")
        return console.print_error(failure)
    return 0


async def _print_summary(session: Session, console: Console, generation: Generation, copy: Path | None) -> None:
    """Prints what is known about a finished generation, at least where its file is."""
    file, copied = session.locate(generation.file_path), "" if copy is None else str(copy)
    fields: Fields = (("file", escape_text(file)), ("copy", escape_text(copied)), ("id", generation.id))
    with console.optional("describe the generation"):
        failpoint("cli.summary")
        fields = summary_fields(generation, file, copied)
        fields = fields if is_synthesized(generation) else (*fields, *licence_fields(generation))
    console.print_fields(fields)
    await print_waveform(session, console, generation.id)
