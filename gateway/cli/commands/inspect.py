"""The commands that look at what there is, and look after it."""

from __future__ import annotations

from pathlib import Path

import grpc.aio

from dgx_music.generation.v1.generation_pb2 import ListModelsRequest, Model
from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_COMPLETED,
    PROMPT_ORDER_MOST_RECENT,
    PROMPT_ORDER_MOST_USED,
    CancelGenerationRequest,
    DeleteGenerationRequest,
    GetGenerationRequest,
    ListGenerationsRequest,
    ListPromptsRequest,
)
from gateway.cli.display.console import Screen, escaped, local_time, standing, styled_standing
from gateway.cli.display.outline import show_outline
from gateway.cli.display.summary import facts_of, licence_of, metadata_of, standing_of
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.output_files import download
from gateway.cli.session.pagination import first
from gateway.cli.session.runner import CALL_SECONDS, Session


async def list_generations(
    session: Session, screen: Screen, *, limit: int, states: list[str], model_name: str, search: str
) -> int:
    """The newest `limit` generations that fit."""
    request = ListGenerationsRequest(states=states, model_name=model_name, prompt_contains=search)
    found = await first(session.music.ListGenerations, request, lambda page: page.generations, limit)
    if screen.as_json:
        for generation in found:
            screen.message(generation)
        return 0
    screen.rows(
        (("id", False), ("state", False), ("length", False), ("model", False), ("created", False), ("prompt", True)),
        (
            (
                generation.id,
                styled_standing(generation),
                f"{generation.duration_seconds:g} s",
                escaped(generation.model_name),
                local_time(generation.created_at),
                escaped(generation.prompt),
            )
            for generation in found
        ),
    )
    return 0


async def show(session: Session, screen: Screen, generation_id: str, *, png: Path | None) -> int:
    """All that is known of one generation; with `png`, a picture of it is written there."""
    response = await session.music.GetGeneration(GetGenerationRequest(id=generation_id), timeout=CALL_SECONDS)
    generation = response.generation
    is_completed = generation.state == GENERATION_STATE_COMPLETED
    drawn = ""
    if png is not None:
        if not is_completed:
            raise CommandError(
                f"--png: generation {generation.id} is {standing(generation)}: there is no audio to draw"
            )
        from gateway.cli.display import picture  # Other commands do without NumPy.

        drawn = str(await picture.draw(session, generation, png))
    if screen.as_json:
        screen.message(generation)
        return 0
    file = session.locate(generation.file_path) if generation.file_path else ""
    facts = (*standing_of(generation), *facts_of(generation, file), *licence_of(generation), *metadata_of(generation))
    screen.facts((*facts, ("picture", escaped(drawn))))
    if is_completed:
        try:
            await show_outline(session, screen, generation.id)
        except grpc.aio.AioRpcError as error:
            screen.notice(f"the waveform can't be drawn: {error.details()}")
    return 0


async def cancel(session: Session, screen: Screen, generation_id: str) -> int:
    """Stops a generation that waits or is being made."""
    response = await session.music.CancelGeneration(CancelGenerationRequest(id=generation_id), timeout=CALL_SECONDS)
    if screen.as_json:
        screen.message(response.generation)
    else:
        screen.notice(f"cancelled generation {response.generation.id}")
    return 0


async def delete(session: Session, screen: Screen, generation_id: str) -> int:
    """Deletes a generation and its file."""
    response = await session.music.DeleteGeneration(DeleteGenerationRequest(id=generation_id), timeout=CALL_SECONDS)
    if screen.as_json:
        screen.message(response)
    else:
        screen.notice(f"deleted generation {generation_id} and its file")
    return 0


async def save(session: Session, screen: Screen, generation_id: str, output: Path | None, *, overwrite: bool) -> int:
    """Downloads a finished generation's file."""
    path = await download(session, generation_id, output, overwrite=overwrite)
    screen.out.print(str(path), markup=False)
    return 0


async def prompts(session: Session, screen: Screen, *, limit: int, recent: bool, search: str) -> int:
    """The `limit` prompts used most, or last."""
    request = ListPromptsRequest(
        order=PROMPT_ORDER_MOST_RECENT if recent else PROMPT_ORDER_MOST_USED, text_contains=search
    )
    found = await first(session.music.ListPrompts, request, lambda page: page.prompts, limit)
    if screen.as_json:
        for prompt in found:
            screen.message(prompt)
        return 0
    screen.rows(
        (("used", False), ("last", False), ("prompt", True)),
        ((str(prompt.used_count), local_time(prompt.last_used_at), escaped(prompt.text)) for prompt in found),
    )
    return 0


async def models(session: Session, screen: Screen) -> int:
    """The models there are, and on standard error those that can be had."""
    response = await session.music.ListModels(ListModelsRequest(), timeout=CALL_SECONDS)
    if screen.as_json:
        for model in response.models:
            screen.message(model)
        return 0
    screen.rows(
        (
            ("model", False),
            ("audio", False),
            ("longest", False),
            ("licence", False),
            ("loaded", False),
            ("version", False),
            ("", True),
        ),
        map(_model_row, response.models),
    )
    from generation_service.models.discovery import PUBLISHED  # Other commands do without what comes along with it.

    if others := sorted(set(PUBLISHED) - {model.name for model in response.models}):
        screen.notice(f"to be had by `dgx-music models pull NAME`, licence CC-BY-NC-4.0: {', '.join(others)}")
    return 0


def _model_row(model: Model) -> tuple[str, ...]:
    name = escaped(model.name) + (" (default)" if model.is_default else "")
    if model.problem:
        return name, "", "", "", "", "", escaped(model.problem)
    return (
        name,
        f"{model.sample_rate_hz / 1000:g} kHz \u00d7 {model.channels}",
        f"{model.max_duration_seconds:g} s",
        escaped(model.license),
        "yes" if model.is_loaded else "no",
        escaped(model.version),
        escaped(model.description),
    )
