"""Answers GetMidi and StreamStems: finds the generation, and asks its model for notes and stems."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

import google_crc32c
import grpc.aio
import numpy as np

from dgx_music.errors import FailedPrecondition, NotFound
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.generation.v1 import generation_pb2
from dgx_music.limits import MAX_CHUNK_BYTES
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from generation_service.models.base import FloatArray, GenerationParameters, ModelInfo
from generation_service.models.catalog import ModelCatalog
from generation_service.models.notation.score import KnowsItsNotes
from generation_service.models.params import build_parameters
from generation_service.parts.midi_file import encode_midi
from generation_service.parts.part_slots import PartSlots
from generation_service.parts.stem_separation import DemucsSeparator, Separator, StemSeparation
from generation_service.worker.converters import encode_pcm, loop_from_proto, sampling_from_proto
from generation_service.worker.source_audio import SourceAudio
from service_runtime.rpc.deadlines import time_left
from service_runtime.validation import check_uuid

_STORAGE_TIMEOUT_SECONDS = 10.0
_SEPARATION_TIMEOUT_SECONDS = 6 * 3600.0
"""The source is read as fast as it is separated."""

Stems = tuple[generation_pb2.StemsHeader, AsyncGenerator[FloatArray, None]]
"""What the stems are, and their blocks: [stems, n, channels]."""


class PartRequests:
    """Serves the notes and stems of finished generations. Nothing of them is stored: they are made when asked for."""

    def __init__(
        self,
        catalog: ModelCatalog,
        storage: storage_pb2_grpc.StorageServiceAsyncStub,
        export: export_pb2_grpc.ExportServiceAsyncStub,
    ) -> None:
        self._catalog, self._storage, self._export = catalog, storage, export
        self._slots = PartSlots()
        self._build_separator: Callable[[], Separator] = DemucsSeparator
        self._separator: Separator | None = None
        """Loaded when it is first needed."""
        self._separator_lock = asyncio.Lock()

    async def get_midi(self, generation_id: str) -> generation_pb2.GetMidiResponse:
        """Returns the notes of a generation as a MIDI file."""
        with self._slots.take():
            generation = await self._get_completed(generation_id)
            info = await self._describe(generation)
            if not info.knows_its_notes:
                raise FailedPrecondition(
                    f"model {info.name!r} does not know its notes, and this server has no model that hears them in "
                    f"audio; only `sketch` writes MIDI. Its stems can be separated, and transcribed by another program",
                    reason="NOTES_UNKNOWN",
                    metadata={"id": generation_id, "model": info.name},
                )
            parameters = _composed_parameters(generation, info)
            model = await self._load(info)
            score = await asyncio.to_thread(model.write_score, parameters)
            description = f"DGX Music, {info.name} {info.version}, seed {generation.seed}, {generation.id}"
            midi = await asyncio.to_thread(encode_midi, score, generation.prompt, description)
            return generation_pb2.GetMidiResponse(midi=midi, origin=generation_pb2.PART_ORIGIN_COMPOSED)

    async def stream_stems(self, generation_id: str) -> AsyncGenerator[generation_pb2.StreamStemsResponse, None]:
        """Yields a header, the chunks of all stems in turns, and an end. Works no further ahead than it is read."""
        with self._slots.take():
            generation = await self._get_completed(generation_id)
            info = await self._describe(generation)
            begin = self._compose_stems if info.knows_its_notes else self._separate_stems
            header, blocks = await begin(generation, info)
            yield generation_pb2.StreamStemsResponse(header=header)
            position = total_chunks = 0
            async with aclosing(blocks):
                async for block in blocks:
                    for chunk in _chunks(block, position):
                        total_chunks += 1
                        yield generation_pb2.StreamStemsResponse(chunk=chunk)
                    position += block.shape[1]
            yield generation_pb2.StreamStemsResponse(end=generation_pb2.StemsEnd(total_chunks=total_chunks))

    async def _compose_stems(self, generation: storage_pb2.Generation, info: ModelInfo) -> Stems:
        """The stems that the model plays."""
        parameters = _composed_parameters(generation, info)
        model = await self._load(info)
        rendering = await asyncio.to_thread(model.render_stems, parameters)
        header = generation_pb2.StemsHeader(
            names=rendering.names,
            sample_rate_hz=info.sample_rate_hz,
            channels=info.channels,
            total_frames=parameters.frames,
            origin=generation_pb2.PART_ORIGIN_COMPOSED,
            file_gain_db=_file_gain_db(generation),
        )

        async def blocks() -> AsyncGenerator[FloatArray, None]:
            rendered = rendering.blocks()
            while (block := await asyncio.to_thread(next, rendered, None)) is not None:
                yield block

        return header, blocks()

    async def _separate_stems(self, generation: storage_pb2.Generation, info: ModelInfo) -> Stems:
        """The stems into which the finished file can be separated."""
        async with self._separator_lock:
            if self._separator is None:
                self._separator = await asyncio.to_thread(self._build_separator)
        separator = self._separator
        source = SourceAudio(self._export, generation.id, "generation_id", _SEPARATION_TIMEOUT_SECONDS)
        found = await source.read_header()
        rate = separator.sample_rate_hz
        frames = round(found.expected_frames * rate / found.sample_rate_hz)
        header = generation_pb2.StemsHeader(
            names=separator.names,
            sample_rate_hz=rate,
            channels=2,
            total_frames=frames,
            origin=generation_pb2.PART_ORIGIN_ESTIMATED,
        )

        async def blocks() -> AsyncGenerator[FloatArray, None]:
            separation = StemSeparation(separator)
            # Resampling may yield a frame more or less than the header says.
            remaining = frames
            async with aclosing(source.blocks(sample_rate_hz=rate, channels=2)) as parts:  # type: ignore[type-var]
                async for part in parts:
                    part = part[:remaining]
                    remaining -= len(part)
                    if (block := await asyncio.to_thread(separation.feed, part)) is not None:
                        yield block
            await asyncio.to_thread(separation.feed, np.zeros((remaining, 2), np.float32))
            yield await asyncio.to_thread(separation.finish)

        return header, blocks()

    async def _get_completed(self, generation_id: str) -> storage_pb2.Generation:
        check_uuid("generation_id", generation_id)
        try:
            response = await self._storage.GetGeneration(
                storage_pb2.GetGenerationRequest(id=generation_id), timeout=time_left(_STORAGE_TIMEOUT_SECONDS)
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise NotFound("generation", generation_id) from error
            raise
        generation = response.generation
        if generation.state != storage_pb2.GENERATION_STATE_COMPLETED:
            state = storage_pb2.GenerationState.Name(generation.state).removeprefix("GENERATION_STATE_")
            raise FailedPrecondition(
                f"generation {generation_id} is {state}; notes and stems are there once it is COMPLETED",
                reason="GENERATION_NOT_COMPLETED",
                metadata={"id": generation_id, "state": state},
            )
        return generation

    async def _describe(self, generation: storage_pb2.Generation) -> ModelInfo:
        """The model of a generation, in the version that made it."""
        info = await self._catalog.describe(generation.model_name)
        if info.knows_its_notes and generation.model_version != info.version:
            raise FailedPrecondition(
                f"generation {generation.id} was made by version {generation.model_version} of {info.name}, and this "
                f"server has version {info.version}, which plays other music for the same seed. Generate its prompt "
                "again to have music whose notes and stems are known",
                reason="MODEL_VERSION_CHANGED",
                metadata={"id": generation.id, "made_by": generation.model_version, "installed": info.version},
            )
        return info

    async def _load(self, info: ModelInfo) -> KnowsItsNotes:
        model = await asyncio.to_thread(self._catalog.get(info.name).load)
        if not isinstance(model, KnowsItsNotes):
            raise TypeError(f"model {info.name} says that it knows its notes, but has no method for them")
        return model


def _composed_parameters(generation: storage_pb2.Generation, info: ModelInfo) -> GenerationParameters:
    """The parameters that the model was given. Raises FailedPrecondition if the music is not its work alone."""
    for field in ("edit", "continuation"):
        if generation.HasField(field):
            raise FailedPrecondition(
                f"generation {generation.id} joins new music to earlier audio, whose parts are not known; ask "
                "for those of the generations that it was made from (`dgx-music show ID --lineage`)",
                reason="JOINED_AUDIO",
                metadata={"id": generation.id, "field": field},
            )
    parameters = build_parameters(
        info, generation.prompt, generation.duration_seconds, generation.seed, sampling_from_proto(generation.sampling)
    )
    return replace(parameters, loop=loop_from_proto(generation.loop)) if generation.HasField("loop") else parameters


def _file_gain_db(generation: storage_pb2.Generation) -> float:
    value = generation.metadata.fields.get("gain_db")
    return 0.0 if value is None else value.number_value


def _chunks(block: FloatArray, position: int) -> list[generation_pb2.StemChunk]:
    """The block, [stems, n, channels], as chunks in the order of time, for which the stems take turns."""
    step = MAX_CHUNK_BYTES // (block.shape[2] * 4)
    chunks = []
    for start in range(0, block.shape[1], step):
        for stem, samples in enumerate(block[:, start : start + step]):
            pcm = encode_pcm(np.ascontiguousarray(samples))
            chunk = generation_pb2.StemChunk(
                stem=stem, start_frame=position + start, pcm=pcm, crc32c=google_crc32c.value(pcm)
            )
            chunks.append(chunk)
    return chunks
