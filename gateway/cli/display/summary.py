"""A generation in words: what is told of it, name by name."""

from __future__ import annotations

import json
from collections.abc import Sequence

from google.protobuf.json_format import MessageToDict

from dgx_music.audio.v1.audio_pb2 import FILE_FORMAT_WAV_PCM_24, FileFormat
from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.cli.display.console import TIMES_REAL_TIME, escaped, local_time, styled_standing

CHANNELS = {1: "mono", 2: "stereo"}
TOLD = {"bpm", "key", "genre", "license", "integrated_lufs", "true_peak_dbtp", "normalization_reason", "is_synthesiser"}
"""Metadata that other facts are made of."""
Facts = Sequence[tuple[str, str]]


def facts_of(generation: Generation, file: str, copy: str = "") -> Facts:
    """What is worth knowing of the music; empty is what is not known (yet). `file`, `copy`: where it is."""
    return (
        ("file", escaped(file)),
        ("copy", escaped(copy)),
        ("audio", _audio(generation)),
        ("loudness", _loudness(generation)),
        ("true peak", _figure(generation, "true_peak_dbtp", "{:.1f} dBTP")),
        ("tempo", _figure(generation, "bpm", "{:g} BPM")),
        ("key", _text(generation, "key")),
        ("measured", _measured(generation)),
        ("dynamics", _dynamics(generation)),
        ("genre", _text(generation, "genre")),
        ("seed", str(generation.seed)),
        ("sampling", _sampling(generation)),
        ("continues", _continuation(generation)),
        ("model", escaped(f"{generation.model_name} {generation.model_version}".rstrip())),
        ("made in", _speed(generation)),
        ("marked", _marked(generation)),
        ("id", generation.id),
    )


def licence_of(generation: Generation) -> Facts:
    """The licence of the model's weights and of what they make."""
    return (("licence", _text(generation, "license")),)


def metadata_of(generation: Generation) -> Facts:
    """What else is kept with it, by its own names."""
    others = sorted((name, value) for name, value in MessageToDict(generation.metadata).items() if name not in TOLD)
    return tuple((escaped(name), escaped(_plain(value))) for name, value in others)


def is_synthesised(generation: Generation) -> bool:
    """Whether it was made by rule, without weights that somebody licenses."""
    return generation.metadata.fields["is_synthesiser"].bool_value


def standing_of(generation: Generation) -> Facts:
    """How it came to be, and where it stands."""
    attempts = f"{generation.attempt} of {generation.max_attempts}" if generation.attempt else ""
    times = [
        (name, local_time(getattr(generation, name)) if generation.HasField(name) else "")
        for name in ("created_at", "started_at", "completed_at")
    ]
    return (
        ("prompt", escaped(generation.prompt)),
        ("state", styled_standing(generation)),
        ("error", escaped(generation.error_message)),
        *((name.replace("_at", ""), value) for name, value in times),
        ("attempt", attempts),
        ("priority", f"{generation.priority:+d}" if generation.priority else ""),
    )


def _sampling(generation: Generation) -> str:
    return ", ".join(f"{field.name.replace('_', ' ')} {value:g}" for field, value in generation.sampling.ListFields())


def _continuation(generation: Generation) -> str:
    source = generation.continuation
    return f"the last {source.seconds:g} s of {source.source_id}" if generation.HasField("continuation") else ""


def audio_in_words(seconds: float, sample_rate_hz: int, channels: int, file_format: str, size_bytes: int) -> str:
    """E.g. "16 s, 32 kHz stereo, WAV PCM 24, 3.1 MB"; without the size where that is 0."""
    size = f", {size_bytes / 1e6:.1f} MB" if size_bytes else ""
    words = f"{sample_rate_hz / 1000:g} kHz {CHANNELS[channels]}, {file_format.replace('_', ' ')}"
    return f"{seconds:g} s, {words}{size}"


def _audio(generation: Generation) -> str:
    """Of the file, as it is once it is there and as it was asked for before."""
    asked = generation.output
    file_format = asked.format or FILE_FORMAT_WAV_PCM_24
    return audio_in_words(
        generation.duration_seconds,
        _number(generation, "file_sample_rate_hz") or asked.sample_rate_hz or generation.sample_rate_hz,
        _number(generation, "file_channels") or asked.channels or generation.channels,
        FileFormat.Name(file_format).removeprefix("FILE_FORMAT_"),
        generation.file_size_bytes,
    )


def _loudness(generation: Generation) -> str:
    loudness = _figure(generation, "integrated_lufs", "{:.1f} LUFS")
    reason = _text(generation, "normalization_reason")
    return f"{loudness} ({reason})" if loudness and reason else loudness or reason


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.15g}"
    return json.dumps(value, ensure_ascii=False)


def _measured(generation: Generation) -> str:
    """Tempo and key as heard, each with its confidence, where the model does not know them."""
    alternative = _figure(generation, "measured_bpm_alternative", " (or {:.1f})")
    tempo = _figure(generation, "measured_bpm", f"{{:.1f}} BPM{alternative}")
    key = _text(generation, "measured_key")
    return "; ".join(
        f"{what}, confidence {_figure(generation, confidence, '{:.2f}')}"
        for what, confidence, known in (
            (tempo, "measured_bpm_confidence", "bpm"),
            (key, "measured_key_confidence", "key"),
        )
        if what and known not in generation.metadata
    )


def _dynamics(generation: Generation) -> str:
    ratio = _figure(generation, "peak_to_loudness_lu", "peak {:.1f} LU above loudness")
    limited = _figure(generation, "largest_reduction_db", "limited by up to {:.1f} dB")
    return ", ".join(filter(None, [ratio, _figure(generation, "rms_dbfs", "{:.1f} dBFS RMS"), limited]))


def _marked(generation: Generation) -> str:
    """Where the file says that an AI made it."""
    marks = _text(generation, "provenance")
    return f"AI-generated, in {marks.replace('_', ' ')}" if marks else ""


def _speed(generation: Generation) -> str:
    seconds = generation.generation_time_seconds
    return f"{seconds:.2f} s, {generation.duration_seconds / seconds:.0f}{TIMES_REAL_TIME}" if seconds else ""


def _figure(generation: Generation, name: str, layout: str) -> str:
    value = generation.metadata.fields[name].number_value if name in generation.metadata.fields else 0.0
    return layout.format(value) if value else ""


def _number(generation: Generation, name: str) -> int:
    return int(generation.metadata.fields[name].number_value) if name in generation.metadata.fields else 0


def _text(generation: Generation, name: str) -> str:
    return escaped(generation.metadata.fields[name].string_value) if name in generation.metadata.fields else ""
