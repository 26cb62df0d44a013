"""Proto ↔ domain, for what is read from storage and sent to storage, export and callers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from google.protobuf import struct_pb2

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from dgx_music.pcm import live_header
from dgx_music.storage.v1 import storage_pb2
from generation_service.engine.request_handle import GenerationHandle
from generation_service.engine.sequence import Stage
from generation_service.models.base import FloatArray, MetadataValue
from generation_service.models.sketch.composition.prompt_parser import parse_prompt

STAGES = {
    Stage.QUEUED: storage_pb2.GENERATION_STAGE_QUEUED,
    Stage.LOADING_MODEL: storage_pb2.GENERATION_STAGE_LOADING_MODEL,
    Stage.ENCODING_PROMPT: storage_pb2.GENERATION_STAGE_ENCODING_PROMPT,
    Stage.GENERATING: storage_pb2.GENERATION_STAGE_GENERATING,
}


def pcm(block: FloatArray) -> bytes:
    """float32 [n, channels] as interleaved little-endian float32."""
    return block.astype(np.dtype("<f4"), copy=False).tobytes()


def audio_header(generation_id: str, attempt: int, handle: GenerationHandle) -> audio_pb2.AudioHeader:
    """The header of the audio that the handle gives."""
    info = handle.info
    return live_header(generation_id, attempt, info.sample_rate_hz, info.channels, handle.parameters.frames)


def sampling(message: storage_pb2.SamplingParameters) -> dict[str, float]:
    """The fields that are set, by name."""
    return {field.name: value for field, value in message.ListFields()}


def export_header(generation: storage_pb2.Generation, handle: GenerationHandle) -> export_pb2.ExportHeader:
    """What is coming for this generation, once its prompt is encoded."""
    known = handle.metadata
    return export_pb2.ExportHeader(
        audio=audio_header(generation.id, generation.attempt, handle),
        output=generation.output if generation.HasField("output") else None,
        tags=export_pb2.Tags(
            model_name=handle.info.name,
            model_version=handle.info.version,
            genre=str(known.get("genre", "")),
            bpm=float(known.get("bpm", 0.0)),
            key=str(known.get("key", "")),
            license=handle.info.licence,
            prompt=generation.prompt if generation.output.tag_prompt else "",
        ),
        tempo_hint_bpm=float(known.get("bpm", parse_prompt(generation.prompt).bpm or 0.0)),
    )


def completion(
    generation: storage_pb2.Generation,
    lease_token: str,
    handle: GenerationHandle,
    exported: export_pb2.ExportResponse,
    generation_time_seconds: float,
) -> storage_pb2.CompleteGenerationRequest:
    """Says that the file is in place, and all that is known of it."""
    return storage_pb2.CompleteGenerationRequest(
        id=generation.id,
        lease_token=lease_token,
        file_path=exported.file_path,
        file_size_bytes=exported.file_size_bytes,
        generation_time_seconds=generation_time_seconds,
        model_version=handle.info.version,
        metadata=_struct(_metadata(generation, handle, exported)),
    )


def _metadata(
    generation: storage_pb2.Generation, handle: GenerationHandle, exported: export_pb2.ExportResponse
) -> dict[str, MetadataValue]:
    normalization, loudness = exported.normalization, exported.file
    known: dict[str, MetadataValue] = {
        **handle.metadata,
        "license": handle.info.licence,
        "is_synthesiser": handle.info.is_synthesiser,
        "frames": exported.frames,
        "file_format": audio_pb2.FileFormat.Name(exported.format).removeprefix("FILE_FORMAT_"),
        "file_sample_rate_hz": exported.sample_rate_hz,
        "file_channels": exported.channels,
        "pcm_sha256": exported.pcm_sha256,
        "file_sha256": exported.file_sha256,
        "normalization_mode": export_pb2.NormalizationMode.Name(normalization.mode).removeprefix("NORMALIZATION_MODE_"),
        "gain_db": normalization.gain_db,
        "shortfall_lu": normalization.shortfall_lu,
        "largest_reduction_db": normalization.largest_reduction_db,
        "limited_share": normalization.limited_share,
    }
    known["provenance"] = ", ".join(
        export_pb2.ProvenanceMark.Name(mark).removeprefix("PROVENANCE_MARK_") for mark in exported.marks
    )
    if normalization.reason:
        known["normalization_reason"] = normalization.reason
    if handle.parameters.prompt_audio is not None:
        known["continued_from"] = generation.continuation.source_id
        known["continued_seconds"] = len(handle.parameters.prompt_audio) / handle.info.sample_rate_hz
    # A figure that the audio is too short or too quiet for is left out.
    if loudness.HasField("integrated_lufs"):
        known["integrated_lufs"] = loudness.integrated_lufs
    if loudness.HasField("true_peak_dbtp"):
        known["true_peak_dbtp"] = loudness.true_peak_dbtp
    if loudness.HasField("range_lu"):
        known["loudness_range_lu"] = loudness.range_lu
    if loudness.HasField("rms_dbfs"):
        known["rms_dbfs"] = loudness.rms_dbfs
    if loudness.HasField("peak_to_loudness_lu"):
        known["peak_to_loudness_lu"] = loudness.peak_to_loudness_lu
    # Beside what the model itself knows, which is not measured.
    if exported.HasField("tempo"):
        known["measured_bpm"] = exported.tempo.bpm
        known["measured_bpm_confidence"] = exported.tempo.confidence
        known["measured_bpm_alternative"] = exported.tempo.alternative_bpm
    if exported.HasField("key"):
        known["measured_key"] = exported.key.name
        known["measured_key_confidence"] = exported.key.confidence
    return known


def _struct(values: Mapping[str, MetadataValue]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    # No ear and no meter tells more, and each figure is kept a million times.
    struct.update({name: round(value, 2) if isinstance(value, float) else value for name, value in values.items()})
    return struct
