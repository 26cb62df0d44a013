"""The commands that generate music and follow its progress: generate, retry and watch."""

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
from dgx_music.error_status import UNWRITABLE_REASONS, read_error_details
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
from gateway.cli.commands.continuation_source import ContinuationSource, build_continuation
from gateway.cli.display.braille_waveform import print_waveform
from gateway.cli.display.console import Console, escape_text
from gateway.cli.display.summary import Fields, is_synthesized, licence_fields, summary_fields
from gateway.cli.session.command_errors import BAD_INPUT, CommandError, format_error
from gateway.cli.session.cover_file import add_cover
from gateway.cli.session.output_files import download
from gateway.cli.session.runner import Session
from gateway.cli.session.standard_streams import STANDARD_OUTPUT
from gateway.timeouts import CALL_TIMEOUT_SECONDS, STREAM_TIMEOUT_SECONDS
from service_runtime.failpoints import failpoint

SKETCH = "sketch"
"""The model that is always installed."""
TERMINAL_STATES = (GENERATION_STATE_COMPLETED, GENERATION_STATE_FAILED, GENERATION_STATE_CANCELLED)
DETACH_NEEDS_SERVER = (
    "--detach needs a server that keeps running after this command ends; nothing was queued. "
    "Start `dgx-music serve`, or set DGX_MUSIC_GATEWAY_ADDRESS"
)


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """The arguments and options of `generate`."""

    prompt: str
    duration_seconds: float
    seed: int | None
    model_name: str
    """Empty for the server's default model."""
    model_folder: Path | None
    """The folder of the model, if it was given as one."""
    sampling: SamplingParameters | None
    source: ContinuationSource | None
    """What to continue from."""
    output: OutputOptions | None
    """Format and loudness of the file."""
    cover: bytes
    """A PNG or JPEG file for the tags; empty for none."""
    count: int
    priority: int
    output_paths: Sequence[Path]
    """One file per generation, or empty."""
    detach: bool


def resolve_model(model: str) -> tuple[str, Path | None]:
    """Returns the name and the folder, if any, of the model that --model names or points to.

    Raises CommandError if the folder does not exist.
    """
    folder = Path(model).expanduser()
    if not model or (os.sep not in model and not (folder / "state_dict.bin").is_file()):
        return model, None
    if not folder.is_dir():
        raise CommandError(f"--model: the folder {folder} does not exist", BAD_INPUT)
    return folder.resolve().name, folder.resolve()


def build_sampling_params(**parameters: Any) -> SamplingParameters | None:
    """Returns the parameters that were given, or None if there are none."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return SamplingParameters(**given) if given else None


def numbered_output_paths(output: Path | None, count: int) -> list[Path]:
    """Returns a path for each generation: `output` itself for one, beat-1.wav, beat-2.wav … for several."""
    if output is None:
        return []
    if count == 1 or output == STANDARD_OUTPUT:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(1, count + 1)]


async def generate(session: Session, console: Console, options: GenerateOptions) -> int:
    """Creates all generations at once and reports their results."""
    if options.detach and not session.is_persistent:
        raise CommandError(DETACH_NEEDS_SERVER, BAD_INPUT)
    if options.model_folder is not None and not session.is_embedded:
        console.print_notice(await _describe_server_model(session, options.model_name, options.model_folder))
    continuation = None
    if options.source is not None:
        continuation = await build_continuation(session, console, options.source, options.model_name)
    creations = [asyncio.create_task(_create(session, options, continuation, i)) for i in range(options.count)]
    try:
        generations = await asyncio.shield(asyncio.gather(*creations))
    except BaseException:
        # Interrupted, or one was rejected. Requests already sent are awaited: a generation whose id is not known could
        # not be cancelled.
        results = await asyncio.gather(*creations, return_exceptions=True)
        await _cancel(session, console, [result for result in results if isinstance(result, Generation)])
        raise
    if not options.model_name:
        console.print_notice(await _describe_default_model(session, generations[0].model_name))
    if options.detach:
        return _print_queued(console, generations)
    return await _follow_or_cancel(session, console, generations, options.output_paths, options.cover)


async def retry(session: Session, console: Console, generation_id: str, *, detach: bool) -> int:
    """Retries a failed generation and reports its result."""
    if detach and not session.is_persistent:
        raise CommandError(DETACH_NEEDS_SERVER, BAD_INPUT)
    request = RetryGenerationRequest(id=generation_id)
    generation = (await session.music.RetryGeneration(request, timeout=CALL_TIMEOUT_SECONDS)).generation
    if detach:
        return _print_queued(console, [generation])
    return await _follow_or_cancel(session, console, [generation], [])


async def watch(session: Session, console: Console, generation_id: str) -> int:
    """Shows the progress of a generation until it finishes; with JSON, every change."""
    with console.progress() as progress:
        on_change = console.print_message if console.as_json else progress.update
        generation = await _wait_until_finished(session, generation_id, on_change)
    return await _report_result(session, console, generation, None)


async def _create(
    session: Session, options: GenerateOptions, continuation: Continuation | None, index: int
) -> Generation:
    request = CreateGenerationRequest(
        request_id=str(uuid.uuid4()),
        prompt=options.prompt,
        model_name=options.model_name,
        duration_seconds=options.duration_seconds,
        seed=None if options.seed is None else options.seed + index,
        sampling=options.sampling,
        continuation=continuation,
        output=options.output,
        priority=options.priority,
    )
    response = await session.music.CreateGeneration(request, timeout=CALL_TIMEOUT_SECONDS)
    return response.generation


async def _describe_default_model(session: Session, name: str) -> str:
    model = await _find_model(session, name)
    description = "" if model is None else f" ({model.description.rstrip('.')})"
    hint = (
        "download MusicGen with `dgx-music models pull musicgen-small`"
        if name == SKETCH
        else "list the models with `dgx-music models`"
    )
    return f"model: {name}{description}; use --model to choose another, or {hint}"


async def _describe_server_model(session: Session, name: str, folder: Path) -> str:
    """Describes the server's model of this name. Raises CommandError if it has none: it may not see the folder."""
    model = await _find_model(session, name)
    if model is None:
        raise CommandError(
            f"--model: the running server has no model {name!r}; copy or link {folder} into the folder `models` of its "
            f"data directory, here {session.data_dir / 'models'}",
            BAD_INPUT,
        )
    return f"model: {name} {model.version}, as installed on the running server"


async def _find_model(session: Session, name: str) -> Model | None:
    response = await session.music.ListModels(ListModelsRequest(), timeout=CALL_TIMEOUT_SECONDS)
    return next((model for model in response.models if model.name == name), None)


def _print_queued(console: Console, generations: Sequence[Generation]) -> int:
    for generation in generations:
        if console.as_json:
            console.print_message(generation)
        else:
            console.out.print(generation.id)
    return 0


async def _follow_or_cancel(
    session: Session,
    console: Console,
    generations: Sequence[Generation],
    output_paths: Sequence[Path],
    cover: bytes = b"",
) -> int:
    """Waits for all generations and reports their results; cancels them if interrupted."""
    try:
        with console.progress() as progress:
            finished = await asyncio.gather(
                *(_wait_until_finished(session, generation.id, progress.update) for generation in generations)
            )
    except asyncio.CancelledError:
        await _cancel(session, console, generations)
        raise
    except grpc.aio.AioRpcError as error:
        if (details := read_error_details(error)).reason not in UNWRITABLE_REASONS:
            raise
        raise CommandError(f"{details.message}, then go on with: dgx-music watch {generations[0].id}") from error
    statuses = []
    for i, generation in enumerate(finished):
        if cover and generation.state == GENERATION_STATE_COMPLETED:
            statuses.append(await _add_cover(session, console, generation, cover))
        if console.as_json:
            console.print_message(generation)
        statuses.append(await _report_result(session, console, generation, output_paths[i] if output_paths else None))
    return max(statuses)


async def _add_cover(session: Session, console: Console, generation: Generation, cover: bytes) -> int:
    """Puts the cover into the finished file, and returns the exit status. The file is kept if that fails."""
    try:
        await add_cover(session, generation, cover)
    except grpc.aio.AioRpcError as error:
        reason, status = format_error(error)
        retry = f"dgx-music files tag {generation.id} --cover IMAGE"
        failure = CommandError(f"failed to add the cover: {reason}; to try again, run: {retry}", status)
        return console.print_error(failure)
    return 0


async def _wait_until_finished(
    session: Session, generation_id: str, on_change: Callable[[Generation], None]
) -> Generation:
    generation = None
    request = WatchGenerationRequest(id=generation_id)
    async for response in session.music.WatchGeneration(request, timeout=STREAM_TIMEOUT_SECONDS):
        generation = response.generation
        on_change(generation)
    if generation is None or generation.state not in TERMINAL_STATES:
        raise CommandError(f"generation {generation_id} was deleted before it finished")
    return generation


async def _report_result(session: Session, console: Console, generation: Generation, output: Path | None) -> int:
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


async def _cancel(session: Session, console: Console, generations: Sequence[Generation]) -> None:
    for generation in generations:
        request = CancelGenerationRequest(id=generation.id)
        try:
            await session.music.CancelGeneration(request, timeout=CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            console.print_notice(f"generation {generation.id} had already finished")
        else:
            console.print_notice(f"cancelled generation {generation.id}")
