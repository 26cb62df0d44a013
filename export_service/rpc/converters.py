"""Converts between messages and domain types: `to_x` from a message, `from_x` to one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2
from dgx_music.limits import MAX_CHANNELS, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ
from export_service.analysis.analyzer import NO_ANALYSIS, Analysis
from export_service.analysis.figure_guard import NotMeasured
from export_service.analysis.key import Key
from export_service.analysis.tempo import Tempo
from export_service.dsp.measurement import LoudnessMeasurement
from export_service.dsp.normalization import Normalization, NormalizationMode
from export_service.library.mastered_file import MasteredFile
from export_service.library.waveform import Waveform
from export_service.pipeline.clip_import import Clip
from export_service.pipeline.tag_editor import EditedFile
from export_service.retagging.tag_edit import TEXT_FIELDS, TagEdit
from export_service.streaming.audio_stream import AudioLevel, FinalAudio, LiveAudio
from export_service.streaming.converted_audio import Conversion, ConvertedAudio
from export_service.streaming.recording import AttemptSpec
from export_service.tagging.cover import parse_cover
from export_service.tagging.disclosure import AiDisclosure
from service_runtime.audio.output_options import check_tag_text
from service_runtime.rpc.output_converters import FORMAT_NAMES
from service_runtime.validation import check_uuid

K = TypeVar("K")
V = TypeVar("V")

MAX_WAIT_SECONDS = 3600.0
MAX_WAVEFORM_POINTS, DEFAULT_WAVEFORM_POINTS = 10_000, 800

LEVELS = {
    audio_pb2.AUDIO_LEVEL_UNSPECIFIED: AudioLevel.ANY,
    audio_pb2.AUDIO_LEVEL_LIVE: AudioLevel.LIVE,
    audio_pb2.AUDIO_LEVEL_FINAL: AudioLevel.FINAL,
}
LEVEL_VALUES = {level: value for value, level in LEVELS.items()}
MODE_VALUES = {
    NormalizationMode.NONE: export_pb2.NORMALIZATION_MODE_NONE,
    NormalizationMode.LINEAR: export_pb2.NORMALIZATION_MODE_LINEAR,
    NormalizationMode.LIMITED: export_pb2.NORMALIZATION_MODE_LIMITED,
}
MARK_VALUES = {
    AiDisclosure.INFO: export_pb2.PROVENANCE_MARK_INFO,
    AiDisclosure.BEXT: export_pb2.PROVENANCE_MARK_BEXT,
    AiDisclosure.ID3: export_pb2.PROVENANCE_MARK_ID3,
    AiDisclosure.VORBIS_COMMENT: export_pb2.PROVENANCE_MARK_VORBIS_COMMENT,
    AiDisclosure.ANNOTATION: export_pb2.PROVENANCE_MARK_ANNOTATION,
    AiDisclosure.MP4: export_pb2.PROVENANCE_MARK_MP4,
    AiDisclosure.C2PA: export_pb2.PROVENANCE_MARK_C2PA,
    AiDisclosure.C2PA_SIDECAR: export_pb2.PROVENANCE_MARK_C2PA_SIDECAR,
}


def to_generation_id(text: str, field: str = "generation_id") -> str:
    """Returns the UUID in its canonical form, the only part of a request that becomes part of a path."""
    return check_uuid(field, text)


def to_attempt(attempt: int, field: str) -> int:
    if attempt < 1:
        raise InvalidArgument(field, f"must be at least 1, not {attempt}")
    return attempt


def to_attempt_spec(header: audio_pb2.AudioHeader, field: str) -> AttemptSpec:
    """Expects a header whose audio format has already been validated by PcmReader."""
    to_attempt(header.attempt, f"{field}.attempt")
    if header.level != audio_pb2.AUDIO_LEVEL_LIVE:
        raise InvalidArgument(
            f"{field}.level", "must be AUDIO_LEVEL_LIVE, because an export takes samples as the model generated them"
        )
    return AttemptSpec(
        generation_id=to_generation_id(header.generation_id, f"{field}.generation_id"),
        attempt=header.attempt,
        sample_rate_hz=header.sample_rate_hz,
        channels=header.channels,
        expected_frames=header.expected_frames,
    )


def to_level(level: audio_pb2.AudioLevel, field: str) -> AudioLevel:
    return _convert_enum(LEVELS, level, field)


def to_render_id(text: str, level: AudioLevel = AudioLevel.FINAL) -> str:
    """Returns the render's id, or "" if the request is not for a render."""
    if text and level is AudioLevel.LIVE:
        raise InvalidArgument("render_id", "must be empty with level LIVE, because a render has no live audio")
    return to_generation_id(text, "render_id") if text else ""


def to_position(position: int, field: str) -> int:
    if position < 0:
        raise InvalidArgument(field, f"must be 0 or more, not {position}")
    return position


def to_wait_seconds(seconds: float) -> float:
    if not (math.isfinite(seconds) and 0 <= seconds <= MAX_WAIT_SECONDS):
        raise InvalidArgument("wait_seconds", f"must be 0 to {MAX_WAIT_SECONDS:.0f}, not {seconds}")
    return seconds


def to_conversion(request: export_pb2.StreamAudioRequest) -> Conversion:
    rate, channels, last_seconds = request.sample_rate_hz, request.channels, request.last_seconds
    if rate and not MIN_SAMPLE_RATE_HZ <= rate <= MAX_SAMPLE_RATE_HZ:
        raise InvalidArgument(
            "sample_rate_hz",
            f"must be {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ}, or 0 to keep the source's sample rate, not {rate}",
        )
    if not 0 <= channels <= MAX_CHANNELS:
        raise InvalidArgument("channels", f"must be 1 or 2, or 0 to keep the source's channels, not {channels}")
    if not (math.isfinite(last_seconds) and last_seconds >= 0):
        raise InvalidArgument(
            "last_seconds", f"must be a number of seconds, or 0 for the whole file, not {last_seconds}"
        )
    if last_seconds and request.start_frame:
        raise InvalidArgument("last_seconds", "must be 0 if start_frame is set, because both say where to start")
    return Conversion(rate, channels, last_seconds)


def to_waveform_points(points: int) -> int:
    if not 0 <= points <= MAX_WAVEFORM_POINTS:
        raise InvalidArgument(
            "points", f"must be 1 to {MAX_WAVEFORM_POINTS}, or 0 for {DEFAULT_WAVEFORM_POINTS}, not {points}"
        )
    return points or DEFAULT_WAVEFORM_POINTS


def to_tag_edit(request: export_pb2.EditTagsRequest) -> TagEdit:
    texts = {name: getattr(request, name) for name in TEXT_FIELDS if request.HasField(name)}
    for name, text in texts.items():
        check_tag_text(name, text)
    cover = parse_cover(request.cover, "cover") if request.cover else None
    return TagEdit(**texts, cover=cover, removes_cover=request.HasField("cover") and cover is None)


def from_edited_file(edited: EditedFile, file_path: str, manifest_path: str) -> export_pb2.EditTagsResponse:
    return export_pb2.EditTagsResponse(
        file_path=file_path,
        file_size_bytes=edited.size_bytes,
        file_sha256=edited.sha256,
        marks=[MARK_VALUES[mark] for mark in edited.marks],
        manifest_path=manifest_path if AiDisclosure.C2PA_SIDECAR in edited.marks else "",
    )


def from_mastered_file(
    file: MasteredFile,
    file_path: str,
    manifest_path: str,
    pcm_sha256: str = "",
    analysis: Analysis = NO_ANALYSIS,
) -> export_pb2.ExportResponse:
    """`manifest_path` is where the manifest is, if there is one beside the file."""
    return export_pb2.ExportResponse(
        file_path=file_path,
        file_size_bytes=file.file_size_bytes,
        file_sha256=file.file_sha256,
        pcm_sha256=pcm_sha256,
        frames=file.frames,
        duration_seconds=file.frames / file.sample_rate_hz,
        sample_rate_hz=file.sample_rate_hz,
        channels=file.channels,
        format=FORMAT_NAMES[file.format],
        source=_loudness(file.source),
        file=_loudness(file.file),
        normalization=_normalization(file.normalization),
        tempo=_tempo(analysis.tempo),
        key=_key(analysis.key),
        marks=[MARK_VALUES[mark] for mark in file.marks],
        manifest_path=manifest_path if AiDisclosure.C2PA_SIDECAR in file.marks else "",
        not_measured=_not_measured(analysis.not_measured),
    )


def from_audio(audio: LiveAudio | FinalAudio | ConvertedAudio) -> audio_pb2.AudioHeader:
    return audio_pb2.AudioHeader(
        generation_id=audio.spec.generation_id,
        attempt=audio.spec.attempt,
        level=LEVEL_VALUES[audio.level],
        sample_rate_hz=audio.spec.sample_rate_hz,
        channels=audio.spec.channels,
        encoding=audio_pb2.PCM_ENCODING_FLOAT32_LE,
        expected_frames=audio.frames,
    )


def from_clip(clip: Clip) -> export_pb2.ImportClipResponse:
    measured = clip.measurement
    return export_pb2.ImportClipResponse(
        clip_id=clip.clip_id,
        duration_seconds=clip.frames / clip.sample_rate_hz,
        frames=clip.frames,
        sample_rate_hz=clip.sample_rate_hz,
        channels=clip.channels,
        pcm_sha256=clip.pcm_sha256,
        loudness=_loudness(measured.loudness) if measured.loudness else None,
        tempo=_tempo(measured.analysis.tempo),
        key=_key(measured.analysis.key),
        not_measured=_not_measured(measured.not_measured),
        source_format=clip.source_format,
        source_channels=clip.source_channels,
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


def _not_measured(failures: tuple[NotMeasured, ...]) -> list[export_pb2.NotMeasured]:
    return [export_pb2.NotMeasured(name=failure.name, reason=failure.reason) for failure in failures]


def _tempo(tempo: Tempo | None) -> export_pb2.Tempo | None:
    if tempo is None:
        return None
    return export_pb2.Tempo(bpm=tempo.bpm, confidence=tempo.confidence, alternative_bpm=tempo.alternative_bpm)


def _key(key: Key | None) -> export_pb2.Key | None:
    return None if key is None else export_pb2.Key(name=key.name, confidence=key.confidence)


def _normalization(normalization: Normalization) -> export_pb2.Normalization:
    return export_pb2.Normalization(
        mode=MODE_VALUES[normalization.mode],
        target_lufs=normalization.target.target_lufs or 0.0,
        ceiling_dbtp=normalization.target.ceiling_dbtp or 0.0,
        gain_db=normalization.gain_db,
        shortfall_lu=normalization.shortfall_lu,
        reason=normalization.reason,
        largest_reduction_db=normalization.largest_reduction_db,
        limited_share=normalization.limited_share,
    )


def _convert_enum(values: Mapping[K, V], value: K, field: str) -> V:
    converted = values.get(value)
    if converted is None:
        raise InvalidArgument(field, f"{value} is not a value of this enum that the server supports")
    return converted
