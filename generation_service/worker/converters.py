"""Conversions between the domain and the messages of the storage and export services."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from google.protobuf import struct_pb2

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import conditioning_pb2, storage_pb2
from generation_service.engine.sequence import Stage
from generation_service.models.base import FloatArray, LoopShape, MetadataValue
from service_runtime.observability.logging import get_logger
from service_runtime.shaping import DEFAULT_BEATS_PER_BAR

log = get_logger(__name__)

STAGE_TO_PROTO = {
    Stage.QUEUED: storage_pb2.GENERATION_STAGE_QUEUED,
    Stage.LOADING_MODEL: storage_pb2.GENERATION_STAGE_LOADING_MODEL,
    Stage.ENCODING_PROMPT: storage_pb2.GENERATION_STAGE_ENCODING_PROMPT,
    Stage.GENERATING: storage_pb2.GENERATION_STAGE_GENERATING,
}


class Exported(NamedTuple):
    """A file in the library, and the header with which its samples were sent, by this attempt or an earlier one."""

    header: export_pb2.ExportHeader
    file: export_pb2.ExportResponse


def encode_pcm(block: FloatArray) -> bytes:
    """Encodes float32 [n, channels] as interleaved little-endian float32."""
    return block.astype(np.dtype("<f4"), copy=False).tobytes()


def sampling_from_proto(message: storage_pb2.SamplingParameters) -> dict[str, float]:
    """Returns the fields that are set, by name."""
    return {field.name: value for field, value in message.ListFields()}


def loop_from_proto(message: conditioning_pb2.Loop) -> LoopShape:
    """Returns the loop of a request that storage has accepted."""
    return LoopShape(message.bars * (message.beats_per_bar or DEFAULT_BEATS_PER_BAR), message.bpm)


def build_completion(
    generation: storage_pb2.Generation,
    lease_token: str,
    exported: Exported,
    generation_time_seconds: float,
) -> storage_pb2.CompleteGenerationRequest:
    """Returns the report that the file is in the library, with everything known about it."""
    metadata = struct_pb2.Struct()
    metadata.CopyFrom(exported.header.generation_facts)
    if exported.header.audio.attempt != generation.attempt:
        metadata["audio_attempt"] = exported.header.audio.attempt
    try:
        metadata.MergeFrom(metadata_struct(_build_metadata(exported.file)))
    except Exception as error:  # The file is complete, whatever is wrong with its description.
        log.error("metadata_incomplete", exc_info=error)
        metadata["file_sha256"] = exported.file.file_sha256
    return storage_pb2.CompleteGenerationRequest(
        id=generation.id,
        lease_token=lease_token,
        file_path=exported.file.file_path,
        file_size_bytes=exported.file.file_size_bytes,
        generation_time_seconds=generation_time_seconds,
        model_version=exported.header.tags.model_version,
        metadata=metadata,
    )


def _build_metadata(exported: export_pb2.ExportResponse) -> dict[str, MetadataValue]:
    normalization, measurement = exported.normalization, exported.file
    metadata: dict[str, MetadataValue] = {
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
    metadata["provenance"] = ", ".join(
        export_pb2.ProvenanceMark.Name(mark).removeprefix("PROVENANCE_MARK_") for mark in exported.marks
    )
    if exported.manifest_path:
        metadata["manifest_path"] = exported.manifest_path
    if normalization.reason:
        metadata["normalization_reason"] = normalization.reason
    # Export omits a value if the audio is too short or too quiet to measure it.
    if measurement.HasField("integrated_lufs"):
        metadata["integrated_lufs"] = measurement.integrated_lufs
    if measurement.HasField("true_peak_dbtp"):
        metadata["true_peak_dbtp"] = measurement.true_peak_dbtp
    if measurement.HasField("range_lu"):
        metadata["loudness_range_lu"] = measurement.range_lu
    if measurement.HasField("rms_dbfs"):
        metadata["rms_dbfs"] = measurement.rms_dbfs
    if measurement.HasField("peak_to_loudness_lu"):
        metadata["peak_to_loudness_lu"] = measurement.peak_to_loudness_lu
    # Measured values have names of their own, beside the "bpm" and "key" that the model intended.
    if exported.HasField("tempo"):
        metadata["measured_bpm"] = exported.tempo.bpm
        metadata["measured_bpm_confidence"] = exported.tempo.confidence
        metadata["measured_bpm_alternative"] = exported.tempo.alternative_bpm
    if exported.HasField("key"):
        metadata["measured_key"] = exported.key.name
        metadata["measured_key_confidence"] = exported.key.confidence
    if exported.not_measured:
        metadata["not_measured"] = "; ".join(f"{figure.name}: {figure.reason}" for figure in exported.not_measured)
    return metadata


def metadata_struct(values: Mapping[str, MetadataValue]) -> struct_pb2.Struct:
    """Converts values for the generation's metadata. Leaves out numbers that are not finite."""
    struct = struct_pb2.Struct()
    for name, value in values.items():
        if not isinstance(value, float):
            struct[name] = value
        elif math.isfinite(value):  # A number that JSON can't represent would have the whole file rejected.
            # More digits are neither audible nor measurable, and would cost space in every row of the database.
            struct[name] = round(value, 2)
    return struct
