"""The audio of a job: what the model generates, on its own, joined to earlier music, or cut to a loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.storage.v1 import storage_pb2
from generation_service.engine.request_handle import GenerationHandle
from generation_service.joining.seamless_loop import SeamlessLoop
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, Section
from generation_service.models.params import build_parameters
from generation_service.processes.engine_client import RequestOrigin
from generation_service.processes.engine_pool import EnginePool
from generation_service.worker import converters
from generation_service.worker.conditioning import build_conditions, require_capabilities
from generation_service.worker.continuation_audio import fetch_prompt_audio
from generation_service.worker.edited_audio import AudioEdit, prepare_edit
from service_runtime.generated_length import bar_seconds as bar_seconds_of


@dataclass(slots=True)
class JobAudio:
    """Samples to export, and what is known about them. The request runs from the creation of this on."""

    handle: GenerationHandle
    """The engine's request."""
    sample_rate_hz: int
    channels: int
    frames: int
    """How many frames `blocks` yields in all."""
    blocks: AsyncIterator[FloatArray]
    """float32 [n, channels], to be read once."""
    facts: Mapping[str, MetadataValue] = field(default_factory=dict)
    """What the metadata of the generation says about how it was made."""
    keeps_samples: bool = False
    """Whether the file should have these samples as they are, unless a loudness or a ceiling is requested."""
    _sections: tuple[Section, ...] | None = None

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections of the music; known once the request has started, as the handle's are."""
        return self.handle.sections if self._sections is None else self._sections


async def start_job_audio(
    generation: storage_pb2.Generation,
    engine: EnginePool,
    export: export_pb2_grpc.ExportServiceAsyncStub,
    *,
    source_timeout_seconds: float,
    checkpoint: bytes = b"",
    weight: float = 1.0,
) -> JobAudio:
    """Fetches the audio that the request refers to, and submits it to the engine, to go on from `checkpoint` if it can.
    `weight` is that of the client.

    Raises InvalidArgument for a request that the model can't serve, and errors of the engine and of `SourceAudio`.
    """
    info = await engine.catalog.describe(generation.model_name)
    await require_capabilities(generation, info, engine.catalog)
    origin = RequestOrigin(generation.id, generation.client, weight)

    async def submit(parameters: GenerationParameters) -> GenerationHandle:
        return await engine.submit(info, replace(parameters, checkpoint=checkpoint), origin)

    if generation.HasField("edit"):
        edit = await prepare_edit(generation.edit, info, export, source_timeout_seconds)
        start = (edit.plan.head_frames - edit.plan.lead_frames) / edit.plan.sample_rate_hz
        parameters = await _build_parameters(generation, info, export, edit.generated_seconds, start_seconds=start)
        return _start_edit(edit, await submit(edit.complete(parameters)))
    _check_format(generation, info)
    if generation.HasField("loop"):
        return await _start_loop(generation, info, export, submit)
    parameters = await _build_parameters(generation, info, export, generation.duration_seconds)
    facts: dict[str, MetadataValue] = {}
    if generation.HasField("continuation"):
        prompt_audio = await fetch_prompt_audio(generation.continuation, info, export)
        parameters = replace(parameters, prompt_audio=prompt_audio)
        facts["continued_from"] = generation.continuation.source_id
        facts["continued_seconds"] = len(prompt_audio) / info.sample_rate_hz
    handle = await submit(parameters)
    return JobAudio(handle, info.sample_rate_hz, info.channels, parameters.frames, handle, facts)


def _start_edit(edit: AudioEdit, handle: GenerationHandle) -> JobAudio:
    return JobAudio(
        handle,
        edit.plan.sample_rate_hz,
        edit.channels,
        edit.plan.frames,
        edit.blocks(handle),
        edit.facts,
        keeps_samples=True,
        _sections=(),
    )


async def _start_loop(
    generation: storage_pb2.Generation,
    info: ModelInfo,
    export: export_pb2_grpc.ExportServiceAsyncStub,
    submit: Callable[[GenerationParameters], Awaitable[GenerationHandle]],
) -> JobAudio:
    loop = generation.loop
    frames = round(generation.duration_seconds * info.sample_rate_hz)
    facts: dict[str, MetadataValue] = {"loop_bars": loop.bars, "bpm": loop.bpm}
    sections = (Section("loop", 0, frames),)
    if info.makes_loops:
        parameters = await _build_parameters(generation, info, export, generation.duration_seconds)
        handle = await submit(replace(parameters, loop=converters.loop_from_proto(loop)))
        return JobAudio(handle, info.sample_rate_hz, info.channels, frames, handle, facts, _sections=sections)
    bar_seconds = bar_seconds_of({"beats_per_bar": loop.beats_per_bar, "bpm": loop.bpm})
    seamless = SeamlessLoop(round(bar_seconds * info.sample_rate_hz), frames, info.sample_rate_hz)
    seconds = seamless.needed_frames / info.sample_rate_hz
    if info.is_synthesiser:
        seconds += bar_seconds  # It ends its pieces with a final chord, which no loop should have.
    parameters = await _build_parameters(generation, info, export, seconds, start_seconds=-bar_seconds)
    handle = await submit(parameters)
    return JobAudio(
        handle, info.sample_rate_hz, info.channels, frames, _cut_loop(seamless, handle), facts, _sections=sections
    )


async def _cut_loop(seamless: SeamlessLoop, handle: GenerationHandle) -> AsyncIterator[FloatArray]:
    async for block in handle:
        yield seamless.feed(block)
        if seamless.is_complete:
            handle.cancel()
            return


async def _build_parameters(
    generation: storage_pb2.Generation,
    info: ModelInfo,
    export: export_pb2_grpc.ExportServiceAsyncStub,
    seconds: float,
    *,
    start_seconds: float = 0.0,
) -> GenerationParameters:
    """The parameters for `seconds` of music, which start at `start_seconds` of the whole."""
    parameters = build_parameters(
        info,
        generation.prompt,
        seconds,
        generation.seed,
        converters.sampling_from_proto(generation.sampling),
    )
    conditions = await build_conditions(
        generation.conditioning,
        info,
        export,
        generation.duration_seconds,
        start_seconds=start_seconds,
        generated_seconds=seconds,
    )
    return replace(parameters, **conditions)


def _check_format(generation: storage_pb2.Generation, info: ModelInfo) -> None:
    for field_name, requested, supported in (
        ("sample_rate_hz", generation.sample_rate_hz, info.sample_rate_hz),
        ("channels", generation.channels, info.channels),
    ):
        if requested != supported:
            raise InvalidArgument(field_name, f"must be {supported} for model {info.name!r}, not {requested}")
