"""What an imported clip is, as pairs of label and text and in one line; an empty text is not shown."""

from __future__ import annotations

from pathlib import Path

from dgx_music.export.v1.export_pb2 import ImportClipResponse
from gateway.cli.display.console import escape_text
from gateway.cli.display.summary import CHANNELS, Fields, format_loudness, format_true_peak


def clip_fields(clip: ImportClipResponse, path: Path) -> Fields:
    """Returns the fields that describe a clip that was imported from `path`."""
    return (
        ("clip", clip.clip_id),
        ("file", escape_text(str(path))),
        ("audio", f"{clip.duration_seconds:g} s, {clip.sample_rate_hz / 1000:g} kHz {CHANNELS[clip.channels]}"),
        ("from", ", ".join(filter(None, [clip.source_format, _mixed_down(clip)]))),
        ("loudness", format_loudness(clip.loudness)),
        ("true peak", format_true_peak(clip.loudness)),
        ("tempo", f"{_tempo(clip)}, confidence {clip.tempo.confidence:.2f}" if clip.HasField("tempo") else ""),
        ("key", f"{clip.key.name}, confidence {clip.key.confidence:.2f}" if clip.HasField("key") else ""),
        ("not measured", escape_text("; ".join(f"{one.name} ({one.reason})" for one in clip.not_measured))),
    )


def format_clip(clip: ImportClipResponse) -> str:
    """Returns for example "MP3, 12.5 s, -14.2 LUFS, 120.0 BPM, A minor"."""
    figures = _mixed_down(clip), format_loudness(clip.loudness), _tempo(clip), clip.key.name
    return ", ".join(filter(None, [clip.source_format, f"{clip.duration_seconds:g} s", *figures]))


def _mixed_down(clip: ImportClipResponse) -> str:
    is_mixed_down = clip.source_channels > clip.channels
    return f"{clip.source_channels} channels mixed down to stereo" if is_mixed_down else ""


def _tempo(clip: ImportClipResponse) -> str:
    alternative = f" (or {clip.tempo.alternative_bpm:.1f})" if clip.tempo.alternative_bpm else ""
    return f"{clip.tempo.bpm:.1f} BPM{alternative}" if clip.HasField("tempo") else ""
