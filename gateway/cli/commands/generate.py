"""The commands that make music: generate, retry, and watch, which looks on."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.generation.v1.generation_pb2 import ListModelsRequest, Model
from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_CANCELLED,
    GENERATION_STATE_COMPLETED,
    GENERATION_STATE_FAILED,
    CancelGenerationRequest,
    Continuation,
    CreateGenerationRequest,
    Generation,
    RetryGenerationRequest,
    SamplingParameters,
    WatchGenerationRequest,
)
from gateway.cli.commands.continuation_source import Source, continuation_of
from gateway.cli.display.console import Screen
from gateway.cli.display.outline import show_outline
from gateway.cli.display.summary import facts_of, is_synthesised, licence_of
from gateway.cli.session.command_errors import BAD_INPUT, FAILURE, CommandError
from gateway.cli.session.output_files import download
from gateway.cli.session.runner import CALL_SECONDS, STREAM_SECONDS, Session

SKETCH = "sketch"
"""The model that is always there."""
FINISHED = (GENERATION_STATE_COMPLETED, GENERATION_STATE_FAILED, GENERATION_STATE_CANCELLED)
DETACH_NEEDS_SERVER = (
    "--detach needs a server that goes on when this command has ended: "
    "start `dgx-music serve`, or set DGX_MUSIC_GATEWAY_ADDRESS to one; nothing was queued"
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What `generate` is asked for."""

    prompt: str
    duration_seconds: float
    seed: int | None
    model_name: str
    """Empty: the server's default."""
    model_folder: Path | None
    """Where that model is, if it was named so."""
    sampling: SamplingParameters | None
    source: Source | None
    """What to go on from."""
    output: OutputOptions | None
    """What the file is to be."""
    count: int
    priority: int
    outputs: Sequence[Path]
    """A file for each, or none."""
    detach: bool


def which_model(model: str) -> tuple[str, Path | None]:
    """What --model says: a name; or a folder, and the name that it has as a model. Raises CommandError where there is
    no such folder."""
    folder = Path(model).expanduser()
    if not model or (os.sep not in model and not (folder / "state_dict.bin").is_file()):
        return model, None
    if not folder.is_dir():
        raise CommandError(f"--model: there is no folder {folder}", BAD_INPUT)
    return folder.resolve().name, folder.resolve()


def sampling_of(**parameters: Any) -> SamplingParameters | None:
    """What was given of it; None where nothing was."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return SamplingParameters(**given) if given else None


def output_names(output: Path | None, count: int) -> list[Path]:
    """`output` itself for one; beat.wav becomes beat-1.wav, beat-2.wav … for more."""
    if output is None:
        return []
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(1, count + 1)]


async def generate(session: Session, screen: Screen, wish: Wish) -> int:
    """Makes as many as wished for, all at once, and shows what came of them."""
    if wish.detach and not session.lasting:
        raise CommandError(DETACH_NEEDS_SERVER, BAD_INPUT)
    if wish.model_folder is not None and not session.is_own:
        screen.notice(await _known_elsewhere(session, wish.model_name, wish.model_folder))
    going_on = None if wish.source is None else await continuation_of(session, screen, wish.source, wish.model_name)
    creations = [asyncio.create_task(_create(session, wish, going_on, number)) for number in range(wish.count)]
    try:
        generations = await asyncio.shield(asyncio.gather(*creations))
    except BaseException:
        # Interrupted, or not all were taken. What has been sent is waited for: one not known could not be cancelled.
        created = await asyncio.gather(*creations, return_exceptions=True)
        await _cancel(session, screen, [one for one in created if isinstance(one, Generation)])
        raise
    if not wish.model_name:
        screen.notice(await _which_model(session, generations[0].model_name))
    if wish.detach:
        return _queued(screen, generations)
    return await _follow_or_cancel(session, screen, generations, wish.outputs)


async def retry(session: Session, screen: Screen, generation_id: str, *, detach: bool) -> int:
    """Tries a failed generation again and shows what came of it."""
    if detach and not session.lasting:
        raise CommandError(DETACH_NEEDS_SERVER, BAD_INPUT)
    response = await session.music.RetryGeneration(RetryGenerationRequest(id=generation_id), timeout=CALL_SECONDS)
    if detach:
        return _queued(screen, [response.generation])
    return await _follow_or_cancel(session, screen, [response.generation], [])


async def watch(session: Session, screen: Screen, generation_id: str) -> int:
    """Shows a generation until it is finished; with JSON, each change."""
    with screen.progress() as progress:
        on_change = screen.message if screen.as_json else progress.show
        generation = await _until_finished(session, generation_id, on_change)
    return await _tell(session, screen, generation, None)


async def _create(session: Session, wish: Wish, going_on: Continuation | None, number: int) -> Generation:
    request = CreateGenerationRequest(
        request_id=str(uuid.uuid4()),
        prompt=wish.prompt,
        model_name=wish.model_name,
        duration_seconds=wish.duration_seconds,
        seed=None if wish.seed is None else wish.seed + number,
        sampling=wish.sampling,
        continuation=going_on,
        output=wish.output,
        priority=wish.priority,
    )
    response = await session.music.CreateGeneration(request, timeout=CALL_SECONDS)
    return response.generation


async def _which_model(session: Session, name: str) -> str:
    found = await _find_model(session, name)
    what = "" if found is None else f" ({found.description.rstrip('.')})"
    more = "`dgx-music models pull musicgen-small` gets MusicGen" if name == SKETCH else "`models` lists them"
    return f"model: {name}{what}; --model takes another, {more}"


async def _known_elsewhere(session: Session, name: str, folder: Path) -> str:
    """What the server has under the name of the folder, which it may not be able to see."""
    found = await _find_model(session, name)
    if found is None:
        raise CommandError(
            f"--model: the server that is up has no model {name!r}: copy or link {folder} into the folder `models` of "
            f"its data directory, here {session.data_dir / 'models'}",
            BAD_INPUT,
        )
    return f"model: {name} {found.version}, as the server that is up has it"


async def _find_model(session: Session, name: str) -> Model | None:
    response = await session.music.ListModels(ListModelsRequest(), timeout=CALL_SECONDS)
    return next((model for model in response.models if model.name == name), None)


def _queued(screen: Screen, generations: Sequence[Generation]) -> int:
    for generation in generations:
        if screen.as_json:
            screen.message(generation)
        else:
            screen.out.print(generation.id)
    return 0


async def _follow_or_cancel(
    session: Session, screen: Screen, generations: Sequence[Generation], outputs: Sequence[Path]
) -> int:
    """Waits for all and shows what came of them; interrupted, cancels them."""
    try:
        with screen.progress() as progress:
            finished = await asyncio.gather(
                *(_until_finished(session, generation.id, progress.show) for generation in generations)
            )
    except asyncio.CancelledError:
        await _cancel(session, screen, generations)
        raise
    statuses = []
    for number, generation in enumerate(finished):
        if screen.as_json:
            screen.message(generation)
        statuses.append(await _tell(session, screen, generation, outputs[number] if outputs else None))
    return max(statuses)


async def _until_finished(session: Session, generation_id: str, on_change: Callable[[Generation], None]) -> Generation:
    generation = None
    async for change in session.music.WatchGeneration(WatchGenerationRequest(id=generation_id), timeout=STREAM_SECONDS):
        generation = change.generation
        on_change(generation)
    if generation is None or generation.state not in FINISHED:
        raise CommandError(f"generation {generation_id} was deleted before it was finished")
    return generation


async def _tell(session: Session, screen: Screen, generation: Generation, output: Path | None) -> int:
    """Shows a finished generation, and saves its file where asked; gives the exit status."""
    if generation.state != GENERATION_STATE_COMPLETED:
        end = "was cancelled"
        if generation.state == GENERATION_STATE_FAILED:
            end = f"failed: {generation.error_message}; to try it again: dgx-music retry {generation.id}"
        screen.notice(f"error: generation {generation.id} {end}")
        return FAILURE
    copy = None if output is None else await download(session, generation.id, output)
    if not screen.as_json:
        await _show_made(session, screen, generation, copy)
    return 0


async def _show_made(session: Session, screen: Screen, generation: Generation, copy: Path | None) -> None:
    facts = facts_of(generation, session.locate(generation.file_path), "" if copy is None else str(copy))
    screen.facts(facts if is_synthesised(generation) else (*facts, *licence_of(generation)))
    await show_outline(session, screen, generation.id)


async def _cancel(session: Session, screen: Screen, generations: Sequence[Generation]) -> None:
    for generation in generations:
        try:
            await session.music.CancelGeneration(CancelGenerationRequest(id=generation.id), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            screen.notice(f"generation {generation.id} was finished already")
        else:
            screen.notice(f"cancelled generation {generation.id}")
