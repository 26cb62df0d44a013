"""The fields that describe a generation, as pairs of label and text; an empty text is not shown."""

from __future__ import annotations

import json
from collections.abc import Sequence

from google.protobuf.json_format import MessageToDict

from dgx_music.audio.v1.audio_pb2 import FILE_FORMAT_WAV_PCM_24, FileFormat
from dgx_music.export.v1.export_pb2 import Loudness
from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.cli.display.console import (
    TIMES_REAL_TIME,
    escape_text,
    format_local_time,
    format_rating,
    format_styled_state,
)
from gateway.cli.display.shaping_summary import shaping_fields
from gateway.cli.display.units import format_size

CHANNELS = {1: "mono", 2: "stereo"}
SUMMARIZED_METADATA = {
    "bpm",
    "key",
    "genre",
    "license",
    "integrated_lufs",
    "true_peak_dbtp",
    "normalization_reason",
    "not_measured",
    "audio_attempt",
    "is_synthesiser",
}
"""Metadata that is shown as part of other fields."""
Fields = Sequence[tuple[str, str]]


def summary_fields(generation: Generation, file: str, copy: str = "") -> Fields:
    """Returns the fields that describe the music. `file` and `copy` are the paths of its file and of a saved copy."""
    return (
        ("file", escape_text(file)),
        ("copy", escape_text(copy)),
        ("audio", _audio(generation)),
        ("loudness", _loudness(generation)),
        ("true peak", _format_number(generation, "true_peak_dbtp", "{:.1f} dBTP")),
        ("tempo", _format_number(generation, "bpm", "{:g} BPM")),
        ("key", _text_value(generation, "key")),
        ("measured", _measured(generation)),
        ("not measured", _text_value(generation, "not_measured")),
        ("dynamics", _dynamics(generation)),
        ("genre", _text_value(generation, "genre")),
        ("seed", str(generation.seed)),
        ("sampling", _sampling(generation)),
        ("continues", _continuation(generation)),
        *shaping_fields(generation),
        ("model", escape_text(f"{generation.model_name} {generation.model_version}".rstrip())),
        ("generated in", _generation_time(generation)),
        ("marked", _provenance(generation)),
        ("id", generation.id),
    )


def licence_fields(generation: Generation) -> Fields:
    """Returns the licence of the model's weights and of the music they generate."""
    return (("licence", _text_value(generation, "license")),)


def metadata_fields(generation: Generation) -> Fields:
    """Returns all other metadata, by its own names."""
    others = sorted(
        (name, value) for name, value in MessageToDict(generation.metadata).items() if name not in SUMMARIZED_METADATA
    )
    return tuple((escape_text(name), escape_text(_format_value(value))) for name, value in others)


def is_synthesized(generation: Generation) -> bool:
    """Returns whether it was synthesized by rules, without licensed weights."""
    return generation.metadata.fields["is_synthesiser"].bool_value


def status_fields(generation: Generation) -> Fields:
    """Returns the request, the state and the times of a generation."""
    attempts = f"{generation.attempt} of {generation.max_attempts}" if generation.attempt else ""
    times = [
        (name, format_local_time(getattr(generation, name)) if generation.HasField(name) else "")
        for name in ("created_at", "started_at", "completed_at")
    ]
    return (
        ("prompt", escape_text(generation.prompt)),
        ("state", format_styled_state(generation)),
        ("error", escape_text(generation.error_message)),
        *((name.replace("_at", ""), value) for name, value in times),
        ("attempt", attempts),
        ("rating", format_rating(generation)),
        ("priority", f"{generation.priority:+d}" if generation.priority else ""),
        ("client", escape_text(generation.client)),
    )


def _sampling(generation: Generation) -> str:
    return ", ".join(f"{field.name.replace('_', ' ')} {value:g}" for field, value in generation.sampling.ListFields())


def _continuation(generation: Generation) -> str:
    source = generation.continuation
    return f"the last {source.seconds:g} s of {source.source_id}" if generation.HasField("continuation") else ""


def format_audio(seconds: float, sample_rate_hz: int, channels: int, file_format: str, size_bytes: int) -> str:
    """Returns for example "16 s, 32 kHz stereo, WAV PCM 24, 3.1 MB"; the size is left out if it is 0."""
    size = f", {format_size(size_bytes)}" if size_bytes else ""
    layout = CHANNELS.get(channels, f"{channels} channels")
    return f"{seconds:g} s, {sample_rate_hz / 1000:g} kHz {layout}, {file_format.replace('_', ' ')}{size}"


def format_loudness(measured: Loudness) -> str:
    """Returns for example "-16.0 LUFS"; empty if the loudness could not be measured."""
    return f"{measured.integrated_lufs:.1f} LUFS" if measured.HasField("integrated_lufs") else ""


def format_true_peak(measured: Loudness) -> str:
    """Returns for example "-1.0 dBTP"; empty if the true peak could not be measured."""
    return f"{measured.true_peak_dbtp:.1f} dBTP" if measured.HasField("true_peak_dbtp") else ""


def _audio(generation: Generation) -> str:
    """Describes the file: as requested until it is written, then as it is."""
    requested = generation.output
    file_format = requested.format or FILE_FORMAT_WAV_PCM_24
    return format_audio(
        generation.duration_seconds,
        _int_value(generation, "file_sample_rate_hz") or requested.sample_rate_hz or generation.sample_rate_hz,
        _int_value(generation, "file_channels") or requested.channels or generation.channels,
        FileFormat.Name(file_format).removeprefix("FILE_FORMAT_"),
        generation.file_size_bytes,
    )


def _loudness(generation: Generation) -> str:
    loudness = _format_number(generation, "integrated_lufs", "{:.1f} LUFS")
    reason = _text_value(generation, "normalization_reason")
    return f"{loudness} ({reason})" if loudness and reason else loudness or reason


def _format_value(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.15g}"
    return json.dumps(value, ensure_ascii=False)


def _measured(generation: Generation) -> str:
    """Returns the tempo and key detected in the audio, with confidences, unless the model itself states them."""
    alternative = _format_number(generation, "measured_bpm_alternative", " (or {:.1f})")
    tempo = _format_number(generation, "measured_bpm", f"{{:.1f}} BPM{alternative}")
    key = _text_value(generation, "measured_key")
    return "; ".join(
        f"{what}, confidence {_format_number(generation, confidence, '{:.2f}')}"
        for what, confidence, known in (
            (tempo, "measured_bpm_confidence", "bpm"),
            (key, "measured_key_confidence", "key"),
        )
        if what and known not in generation.metadata
    )


def _dynamics(generation: Generation) -> str:
    ratio = _format_number(generation, "peak_to_loudness_lu", "peak {:.1f} LU above loudness")
    limited = _format_number(generation, "largest_reduction_db", "limited by up to {:.1f} dB")
    return ", ".join(filter(None, [ratio, _format_number(generation, "rms_dbfs", "{:.1f} dBFS RMS"), limited]))


def _provenance(generation: Generation) -> str:
    """Returns where the file discloses that it is AI-generated."""
    marks = _text_value(generation, "provenance")
    return f"AI-generated, in {marks.replace('_', ' ')}" if marks else ""


def _generation_time(generation: Generation) -> str:
    seconds = generation.generation_time_seconds
    if attempt := _int_value(generation, "audio_attempt"):
        return f"{seconds:.2f} s, from the audio of attempt {attempt}"
    return f"{seconds:.2f} s, {generation.duration_seconds / seconds:.0f}{TIMES_REAL_TIME}" if seconds else ""


def _format_number(generation: Generation, name: str, layout: str) -> str:
    value = generation.metadata.fields[name].number_value if name in generation.metadata.fields else 0.0
    return layout.format(value) if value else ""


def _int_value(generation: Generation, name: str) -> int:
    return int(generation.metadata.fields[name].number_value) if name in generation.metadata.fields else 0


def _text_value(generation: Generation, name: str) -> str:
    return escape_text(generation.metadata.fields[name].string_value) if name in generation.metadata.fields else ""
