"""The commands that generate music and follow its progress: generate, retry and watch."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from dgx_music.error_status import UNWRITABLE_REASONS, read_error_details
from dgx_music.generation.v1.generation_pb2 import ListModelsRequest, Model
from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_COMPLETED,
    CreateGenerationRequest,
    Generation,
    RetryGenerationRequest,
)
from gateway.cli.commands.generation.audio_sources import AudioSources, import_sources
from gateway.cli.commands.generation.file_opener import open_file
from gateway.cli.commands.generation.follow import (
    add_cover_to,
    add_way_on,
    cancel_generations,
    report_result,
    wait_until_finished,
)
from gateway.cli.commands.generation.generate_options import GenerateOptions, numbered_output_paths
from gateway.cli.commands.generation.play import Playback, create_sink
from gateway.cli.display.console import Console
from gateway.cli.playback.audio_sink import AudioSink
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.files.cover_file import read_cover
from gateway.cli.session.files.output_files import check_output
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS

SKETCH = "sketch"
"""The model that is always installed."""
DETACH_NEEDS_SERVER = (
    "--detach needs a server that keeps running after this command ends; nothing was queued. "
    "Start `dgx-music serve`, or set DGX_MUSIC_GATEWAY_ADDRESS"
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What becomes of the finished files, and of their samples until then."""

    output_paths: Sequence[Path] = ()
    """One file per generation, or empty."""
    cover: bytes = b""
    """A PNG or JPEG file for the tags; empty for none."""
    sink: AudioSink | None = None
    """Where the samples are played while they are generated."""
    opens: bool = False
    """Whether to open the finished files with the desktop's program."""


def prepare_delivery(
    console: Console,
    options: GenerateOptions,
    cover: Path | None = None,
    *,
    overwrite: bool,
    play: bool,
    to_stdout: bool = False,
    is_raw: bool = False,
    opens: bool,
) -> Delivery:
    """Checks the files to be written, reads the cover and opens the sound card. Raises CommandError."""
    output_paths = numbered_output_paths(options.output, options.count)
    for path in output_paths:
        check_output(path, overwrite=overwrite, as_json=console.as_json, count=options.count)
    output = options.build_output()
    return Delivery(
        output_paths=output_paths,
        cover=read_cover(cover, output.format if output else None),
        sink=create_sink(console, to_stdout=to_stdout, is_raw=is_raw) if play or to_stdout else None,
        opens=opens,
    )


async def generate(
    session: Session,
    console: Console,
    options: GenerateOptions,
    sources: AudioSources | None = None,
    delivery: Delivery | None = None,
    *,
    model_folder: Path | None = None,
    detach: bool = False,
) -> int:
    """Creates all generations at once and reports their results. `model_folder` is the folder of the model, if it was
    given as one."""
    require_persistent(session, detach=detach)
    if model_folder is not None and not session.is_embedded:
        console.print_notice(await describe_server_model(session, options.model, model_folder))
    ids = await import_sources(session, console, sources or {}, options.model)
    return await create_and_follow(
        session,
        console,
        list(options.build_requests(ids)),
        delivery or Delivery(),
        detach=detach,
        describes_model=not options.model,
    )


def require_persistent(session: Session, *, detach: bool) -> None:
    """Raises CommandError if --detach is given and no server keeps running."""
    if detach and not session.is_persistent:
        raise CommandError(DETACH_NEEDS_SERVER, BAD_INPUT)


async def create_and_follow(
    session: Session,
    console: Console,
    requests: Sequence[CreateGenerationRequest],
    delivery: Delivery,
    *,
    detach: bool,
    describes_model: bool = False,
) -> int:
    """Creates all generations at once and reports their results, or with `detach` their ids."""
    creations = [asyncio.create_task(_create(session, request)) for request in requests]
    try:
        generations = await asyncio.shield(asyncio.gather(*creations))
    except BaseException:
        # Interrupted, or one was rejected. Requests already sent are awaited: a generation whose id is not known could
        # not be cancelled.
        results = await asyncio.gather(*creations, return_exceptions=True)
        await cancel_generations(session, console, [result for result in results if isinstance(result, Generation)])
        raise
    if detach:
        _print_queued(console, generations)
        if describes_model:
            console.print_notice(await describe_default_model(session, generations[0].model_name))
        return 0
    return await _follow_or_cancel(session, console, generations, delivery, describes_model=describes_model)


async def retry(session: Session, console: Console, generation_id: str, *, detach: bool) -> int:
    """Retries a failed generation and reports its result."""
    require_persistent(session, detach=detach)
    request = RetryGenerationRequest(id=generation_id)
    generation = (await session.music.RetryGeneration(request, timeout=CALL_TIMEOUT_SECONDS)).generation
    if detach:
        _print_queued(console, [generation])
        return 0
    return await _follow_or_cancel(session, console, [generation], Delivery())


async def watch(session: Session, console: Console, generation_id: str) -> int:
    """Shows the progress of a generation until it finishes; with JSON, every change."""
    with console.progress() as progress:
        on_change = console.print_message if console.as_json else progress.update
        try:
            generation = await wait_until_finished(session, generation_id, on_change)
        except grpc.aio.AioRpcError as error:
            add_way_on(error, [generation_id])
            raise
    return await report_result(session, console, generation, None)


async def describe_default_model(session: Session, name: str) -> str:
    """Returns a line that says which model the server uses by default, and how to choose another."""
    model = await _find_model(session, name)
    description = "" if model is None else f" ({model.description.rstrip('.')})"
    hint = (
        "download MusicGen with `dgx-music models pull musicgen-small`"
        if name == SKETCH
        else "list the models with `dgx-music models`"
    )
    return f"model: {name}{description}; use --model to choose another, or {hint}"


async def describe_server_model(session: Session, name: str, folder: Path) -> str:
    """Describes the server's model of this name. Raises CommandError if it has none: it may not see the folder."""
    model = await _find_model(session, name)
    if model is None:
        raise CommandError(
            f"--model: the running server has no model {name!r}; copy or link {folder} into the folder `models` of its "
            f"data directory, here {session.data_dir / 'models'}",
            BAD_INPUT,
        )
    return f"model: {name} {model.version}, as installed on the running server"


async def _create(session: Session, request: CreateGenerationRequest) -> Generation:
    request.request_id = str(uuid.uuid4())
    response = await session.music.CreateGeneration(request, timeout=CALL_TIMEOUT_SECONDS)
    return response.generation


async def _find_model(session: Session, name: str) -> Model | None:
    response = await session.music.ListModels(ListModelsRequest(), timeout=CALL_TIMEOUT_SECONDS)
    return next((model for model in response.models if model.name == name), None)


def _print_queued(console: Console, generations: Sequence[Generation]) -> None:
    for generation in generations:
        if console.as_json:
            console.print_message(generation)
        else:
            console.out.print(generation.id)


async def _follow_or_cancel(
    session: Session,
    console: Console,
    generations: Sequence[Generation],
    delivery: Delivery,
    *,
    describes_model: bool = False,
) -> int:
    """Waits for all generations and reports their results; cancels them if interrupted before they have finished."""
    async with Playback(session, console, delivery.sink, [generation.id for generation in generations]) as playback:
        try:
            if describes_model:
                console.print_notice(await describe_default_model(session, generations[0].model_name))
            with console.progress() as progress:
                finished = await asyncio.gather(
                    *(wait_until_finished(session, generation.id, progress.update) for generation in generations)
                )
        except asyncio.CancelledError:
            playback.stop()
            await cancel_generations(session, console, generations)
            raise
        except grpc.aio.AioRpcError as error:
            if (details := read_error_details(error)).reason not in UNWRITABLE_REASONS:
                add_way_on(error, [generation.id for generation in generations])
                raise
            raise CommandError(f"{details.message}, then go on with: dgx-music watch {generations[0].id}") from error
        statuses = [
            await _deliver(session, console, generation, delivery, index) for index, generation in enumerate(finished)
        ]
        statuses.append(await playback.finish())
    return max(statuses)


async def _deliver(session: Session, console: Console, generation: Generation, delivery: Delivery, index: int) -> int:
    """Does with one finished generation what was asked for, and returns the exit status."""
    output = delivery.output_paths[index] if delivery.output_paths else None
    is_completed = generation.state == GENERATION_STATE_COMPLETED
    status = 0
    if delivery.cover and is_completed:
        status = await add_cover_to(session, console, generation, delivery.cover)
    if console.as_json:
        console.print_message(generation)
    status = max(status, await report_result(session, console, generation, output))
    if delivery.opens and is_completed:
        file = output or session.find_local(generation.file_path)
        console.print_notice(await asyncio.to_thread(open_file, file))
    return status
