"""Turns what a request asks for besides its prompt into parameters of the model, and fetches the audio for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.generation.v1 import generation_pb2
from dgx_music.storage.v1 import conditioning_pb2, storage_pb2
from generation_service.models.base import (
    AdapterUse,
    FloatArray,
    ModelInfo,
    PromptSection,
    StyleExcerpt,
    WeightedPrompt,
)
from generation_service.models.catalog import ModelCatalog
from generation_service.worker.source_audio import SourceAudio
from service_runtime.capabilities import needed_capabilities, unsupported_error
from service_runtime.message_fields import read_fields
from service_runtime.shaping import check_conditioning

DEFAULT_STYLE_SECONDS = 3.0
"""What MusicGen-Style's examples use (Rouard et al. 2024)."""
MIN_MELODY_SECONDS = 30.0
"""How much of a melody is fetched for shorter music too: MusicGen-melody always reads as much at once."""
CONDITIONING = "conditioning"


async def build_conditions(
    message: conditioning_pb2.Conditioning,
    info: ModelInfo,
    export: export_pb2_grpc.ExportServiceAsyncStub,
    seconds: float,
    *,
    start_seconds: float = 0.0,
    generated_seconds: float | None = None,
) -> dict[str, Any]:
    """Returns fields of GenerationParameters. `seconds` is the length of the music, of which the model generates
    `generated_seconds` from `start_seconds` on; the start of a loop is preceded by more, so that it is negative.

    Raises InvalidArgument if a field is invalid, and errors as `SourceAudio`.
    """
    check_conditioning(CONDITIONING, read_fields(message), seconds)
    rate = info.sample_rate_hz
    fields: dict[str, Any] = {
        "negative_prompt": message.negative_prompt,
        "further_prompts": tuple(WeightedPrompt(one.prompt, one.weight) for one in message.further_prompts),
        "sections": tuple(_sections_of(message, rate, start_seconds, generated_seconds or seconds)),
        "adapters": tuple(
            AdapterUse(one.name, one.scale if one.HasField("scale") else 1.0) for one in message.adapters
        ),
        "lyrics": message.lyrics,
        "steps": message.steps,
    }
    if message.HasField("prompt_weight"):
        fields["prompt_weight"] = message.prompt_weight
    if message.HasField("melody"):
        melody = message.melody
        length = max(seconds, MIN_MELODY_SECONDS)
        audio = await _fetch(melody.source_id, "melody", melody.start_seconds, length, info, export)
        fields["melody"] = _lead_in(audio, round(-start_seconds * rate), round(seconds * rate))
    if message.HasField("style"):
        style = message.style
        excerpt_seconds = style.seconds or DEFAULT_STYLE_SECONDS
        audio = await _fetch(style.source_id, "style", style.start_seconds, excerpt_seconds, info, export)
        guidance = {"text_guidance": style.text_guidance} if style.HasField("text_guidance") else {}
        fields["style"] = StyleExcerpt(audio, style.quantizers, **guidance)
    return fields


def _lead_in(melody: FloatArray, lead_frames: int, loop_frames: int) -> FloatArray:
    """Puts the end of a loop's melody, or silence if it is shorter, before it: for the music that precedes the loop."""
    if lead_frames <= 0:
        return melody
    lead = np.zeros((lead_frames, melody.shape[1]), np.float32)
    end = melody[max(0, loop_frames - lead_frames) : loop_frames]
    lead[: len(end)] = end
    return np.concatenate([lead, melody])


def _sections_of(
    message: conditioning_pb2.Conditioning, rate: int, start_seconds: float, generated_seconds: float
) -> Iterator[PromptSection]:
    """The sections as far as they are generated, in frames from the start of that."""
    for one in message.sections:
        start = one.start_seconds - start_seconds if one.start_seconds else 0.0
        first, last = (
            round(min(max(0.0, at), generated_seconds) * rate) for at in (start, one.end_seconds - start_seconds)
        )
        if first < last:
            yield PromptSection(first, last, one.prompt)


async def require_capabilities(
    request: storage_pb2.Generation | generation_pb2.GenerateRequest, info: ModelInfo, catalog: ModelCatalog
) -> None:
    """Raises InvalidArgument, which lists the models that can, if the model can't do what is asked for."""
    needed = needed_capabilities(
        read_fields(request.conditioning),
        continuation=request.HasField("continuation"),
        edit=isinstance(request, storage_pb2.Generation) and request.HasField("edit"),
    )
    for field, capability in needed:
        if capability not in info.capabilities:
            capable = await catalog.list_capable(capability)
            raise unsupported_error(field, info.name, capability, capable)


async def _fetch(
    source_id: str,
    name: str,
    start_seconds: float,
    seconds: float,
    info: ModelInfo,
    export: export_pb2_grpc.ExportServiceAsyncStub,
) -> FloatArray:
    rate = info.sample_rate_hz
    return await SourceAudio(export, source_id.lower(), f"{CONDITIONING}.{name}").read(
        round(start_seconds * rate), round(seconds * rate), sample_rate_hz=rate, channels=info.channels
    )
