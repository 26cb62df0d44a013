"""The commands that make music from earlier music: extend, repaint and variations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio

from dgx_music.client.shaping.derived_requests import override, vary
from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest, Generation, GetGenerationRequest
from gateway.cli.commands.generation.audio_sources import import_sources
from gateway.cli.commands.generation.generate import Delivery, create_and_follow, require_persistent
from gateway.cli.commands.generation.generate_options import GenerateOptions
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS

Derive = Callable[[Generation], CreateGenerationRequest]


async def edit(
    session: Session,
    console: Console,
    source: str | Path,
    derive: Derive,
    options: GenerateOptions,
    delivery: Delivery,
    *,
    detach: bool,
) -> int:
    """Edits a generation, a clip or a file. What the options don't give is as in the source."""
    require_persistent(session, detach=detach)
    found = await _find_generation(session, source) if isinstance(source, str) else None
    if found is None and not options.prompt:  # Before a file is imported.
        raise CommandError(f"PROMPT: describe the music; {source} has no prompt of its own", BAD_INPUT)
    source_id = (await import_sources(session, console, {"ID": source}, options.model))["ID"]
    return await _derive(session, console, found or Generation(id=source_id), derive, options, delivery, detach=detach)


async def vary_generation(
    session: Session, console: Console, source_id: str, options: GenerateOptions, delivery: Delivery, *, detach: bool
) -> int:
    """Generates a generation again, with other seeds."""
    require_persistent(session, detach=detach)
    response = await session.music.GetGeneration(GetGenerationRequest(id=source_id), timeout=CALL_TIMEOUT_SECONDS)
    return await _derive(session, console, response.generation, vary, options, delivery, detach=detach)


async def _derive(
    session: Session,
    console: Console,
    source: Generation,
    derive: Derive,
    options: GenerateOptions,
    delivery: Delivery,
    *,
    detach: bool,
) -> int:
    requests = [override(derive(source), changes) for changes in options.build_requests()]
    return await create_and_follow(session, console, requests, delivery, detach=detach)


async def _find_generation(session: Session, generation_id: str) -> Generation | None:
    try:
        request = GetGenerationRequest(id=generation_id)
        return (await session.music.GetGeneration(request, timeout=CALL_TIMEOUT_SECONDS)).generation
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return None
