"""Proto ↔ domain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2
from dgx_music.limits import MAX_CHANNELS, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ
from export_service.analysis.analyzer import NO_ANALYSIS, Analysis
from export_service.analysis.key import Key
from export_service.analysis.tempo import Tempo
from export_service.dsp.measurement import LoudnessMeasurement
from export_service.dsp.normalization import Normalization, NormalizationMode
from export_service.formats.provenance import AiDisclosure
from export_service.formats.tags import MAX_BPM, Tags, clean_tags
from export_service.library.mastered_file import Finished
from export_service.library.waveform import Waveform
from export_service.pipeline.clip_import import Clip
from export_service.streaming.audio_stream import FinalAudio, Level, LiveAudio
from export_service.streaming.converted_audio import Conversion, ConvertedAudio
from export_service.streaming.recording import Take
from service_runtime.rpc.output_converters import FORMAT_NAMES
from service_runtime.validation import check_uuid

K = TypeVar("K")
V = TypeVar("V")

MAX_WAIT_SECONDS = 3600.0
MAX_POINTS, DEFAULT_POINTS = 10_000, 800

LEVELS = {
    audio_pb2.AUDIO_LEVEL_UNSPECIFIED: Level.ANY,
    audio_pb2.AUDIO_LEVEL_LIVE: Level.LIVE,
    audio_pb2.AUDIO_LEVEL_FINAL: Level.FINAL,
}
AUDIO_LEVELS = {Level.LIVE: audio_pb2.AUDIO_LEVEL_LIVE, Level.FINAL: audio_pb2.AUDIO_LEVEL_FINAL}
MODES = {
    NormalizationMode.NONE: export_pb2.NORMALIZATION_MODE_NONE,
    NormalizationMode.LINEAR: export_pb2.NORMALIZATION_MODE_LINEAR,
    NormalizationMode.LIMITED: export_pb2.NORMALIZATION_MODE_LIMITED,
}
MARKS = {
    AiDisclosure.INFO: export_pb2.PROVENANCE_MARK_INFO,
    AiDisclosure.BEXT: export_pb2.PROVENANCE_MARK_BEXT,
    AiDisclosure.ID3: export_pb2.PROVENANCE_MARK_ID3,
    AiDisclosure.VORBIS_COMMENT: export_pb2.PROVENANCE_MARK_VORBIS_COMMENT,
    AiDisclosure.C2PA: export_pb2.PROVENANCE_MARK_C2PA,
}


def to_generation_id(text: str, field: str = "generation_id") -> str:
    """A UUID in its canonical form, which alone ever becomes part of a path."""
    return check_uuid(field, text)


def to_take(header: audio_pb2.AudioHeader, field: str) -> Take:
    """For a header whose format is checked already (PcmReader)."""
    if header.attempt < 1:
        raise InvalidArgument(f"{field}.attempt", f"must be at least 1, not {header.attempt}")
    if header.level != audio_pb2.AUDIO_LEVEL_LIVE:
        raise InvalidArgument(f"{field}.level", "must be AUDIO_LEVEL_LIVE: samples as the model made them")
    return Take(
        generation_id=to_generation_id(header.generation_id, f"{field}.generation_id"),
        attempt=header.attempt,
        sample_rate_hz=header.sample_rate_hz,
        channels=header.channels,
        expected_frames=header.expected_frames,
    )


def to_tags(tags: export_pb2.Tags, field: str) -> Tags:
    return clean_tags(
        Tags(tags.model_name, tags.model_version, tags.genre, tags.bpm, tags.key, tags.license, tags.prompt),
        field,
    )


def to_tempo_hint(bpm: float, field: str) -> float:
    if not (math.isfinite(bpm) and 0 <= bpm <= MAX_BPM):
        raise InvalidArgument(field, f"must be 0 to {MAX_BPM:.0f} beats a minute, not {bpm}")
    return bpm


def to_level(level: audio_pb2.AudioLevel, field: str) -> Level:
    return _known(LEVELS, level, field)


def to_render_id(text: str, level: Level = Level.FINAL) -> str:
    """A render's id, or empty where none is asked for."""
    if text and level is Level.LIVE:
        raise InvalidArgument("render_id", "goes with level FINAL only: what is LIVE is not rendered")
    return to_generation_id(text, "render_id") if text else ""


def to_start(start: int, field: str) -> int:
    if start < 0:
        raise InvalidArgument(field, f"must not be negative, not {start}")
    return start


def to_wait_seconds(seconds: float) -> float:
    if not (math.isfinite(seconds) and 0 <= seconds <= MAX_WAIT_SECONDS):
        raise InvalidArgument("wait_seconds", f"must be 0 to {MAX_WAIT_SECONDS:.0f}, not {seconds}")
    return seconds


def to_conversion(request: export_pb2.StreamAudioRequest) -> Conversion:
    rate, channels, last_seconds = request.sample_rate_hz, request.channels, request.last_seconds
    if rate and not MIN_SAMPLE_RATE_HZ <= rate <= MAX_SAMPLE_RATE_HZ:
        raise InvalidArgument(
            "sample_rate_hz", f"must be {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ}, or 0 as it is, not {rate}"
        )
    if not 0 <= channels <= MAX_CHANNELS:
        raise InvalidArgument("channels", f"must be 1 or 2, or 0 as it is, not {channels}")
    if not (math.isfinite(last_seconds) and last_seconds >= 0):
        raise InvalidArgument("last_seconds", f"must be a number of seconds, or 0 for all, not {last_seconds}")
    if last_seconds and request.start_frame:
        raise InvalidArgument("last_seconds", "goes without start_frame only: each says where to begin")
    return Conversion(rate, channels, last_seconds)


def to_points(points: int) -> int:
    if not 0 <= points <= MAX_POINTS:
        raise InvalidArgument("points", f"must be 0 to {MAX_POINTS}, not {points}")
    return points or DEFAULT_POINTS


def from_finished(
    finished: Finished, file_path: str, pcm_sha256: str = "", analysis: Analysis = NO_ANALYSIS
) -> export_pb2.ExportResponse:
    return export_pb2.ExportResponse(
        file_path=file_path,
        file_size_bytes=finished.file_size_bytes,
        file_sha256=finished.file_sha256,
        pcm_sha256=pcm_sha256,
        frames=finished.frames,
        duration_seconds=finished.frames / finished.sample_rate_hz,
        sample_rate_hz=finished.sample_rate_hz,
        channels=finished.channels,
        format=FORMAT_NAMES[finished.format],
        source=_loudness(finished.source),
        file=_loudness(finished.file),
        normalization=_normalization(finished.normalization),
        tempo=_tempo(analysis.tempo),
        key=_key(analysis.key),
        marks=[MARKS[mark] for mark in finished.marks],
    )


def from_audio(audio: LiveAudio | FinalAudio | ConvertedAudio) -> audio_pb2.AudioHeader:
    return audio_pb2.AudioHeader(
        generation_id=audio.take.generation_id,
        attempt=audio.take.attempt,
        level=AUDIO_LEVELS[audio.level],
        sample_rate_hz=audio.take.sample_rate_hz,
        channels=audio.take.channels,
        encoding=audio_pb2.PCM_ENCODING_FLOAT32_LE,
        expected_frames=audio.frames,
    )


def from_clip(clip: Clip) -> export_pb2.ImportClipResponse:
    return export_pb2.ImportClipResponse(
        clip_id=clip.clip_id,
        duration_seconds=clip.frames / clip.sample_rate_hz,
        frames=clip.frames,
        sample_rate_hz=clip.sample_rate_hz,
        channels=clip.channels,
        pcm_sha256=clip.pcm_sha256,
    )


def from_waveform(waveform: Waveform) -> export_pb2.GetWaveformResponse:
    return export_pb2.GetWaveformResponse(
        version=2,
        channels=1,
        sample_rate=waveform.sample_rate_hz,
        samples_per_pixel=waveform.samples_per_pixel,
        bits=8,
        length=len(waveform.data) // 2,
        data=waveform.data,
    )


def _loudness(measured: LoudnessMeasurement) -> export_pb2.Loudness:
    return export_pb2.Loudness(
        integrated_lufs=measured.loudness.integrated_lufs,
        max_momentary_lufs=measured.loudness.max_momentary_lufs,
        max_short_term_lufs=measured.loudness.max_short_term_lufs,
        range_lu=measured.loudness.range_lu,
        true_peak_dbtp=measured.true_peak_dbtp,
        rms_dbfs=measured.rms_dbfs,
        peak_to_loudness_lu=measured.peak_to_loudness_lu,
    )


def _tempo(tempo: Tempo | None) -> export_pb2.Tempo | None:
    if tempo is None:
        return None
    return export_pb2.Tempo(bpm=tempo.bpm, confidence=tempo.confidence, alternative_bpm=tempo.alternative_bpm)


def _key(key: Key | None) -> export_pb2.Key | None:
    return None if key is None else export_pb2.Key(name=key.name, confidence=key.confidence)


def _normalization(normalization: Normalization) -> export_pb2.Normalization:
    return export_pb2.Normalization(
        mode=MODES[normalization.mode],
        target_lufs=normalization.target.target_lufs or 0.0,
        ceiling_dbtp=normalization.target.ceiling_dbtp or 0.0,
        gain_db=normalization.gain_db,
        shortfall_lu=normalization.shortfall_lu,
        reason=normalization.reason,
        largest_reduction_db=normalization.largest_reduction_db,
        limited_share=normalization.limited_share,
    )


def _known(meanings: Mapping[K, V], value: K, field: str) -> V:
    meaning = meanings.get(value)
    if meaning is None:
        raise InvalidArgument(field, f"{value} is no value of this enum that the server knows")
    return meaning
