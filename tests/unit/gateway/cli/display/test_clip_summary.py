"""What is shown of an imported clip."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.export.v1.export_pb2 import ImportClipResponse, Key, Loudness, NotMeasured, Tempo
from gateway.cli.display.clip_summary import clip_fields, format_clip

CLIP = {
    "clip_id": "c",
    "duration_seconds": 12.5,
    "sample_rate_hz": 44_100,
    "channels": 2,
    "source_format": "MP3",
    "source_channels": 2,
}


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        ({}, "MP3, 12.5 s"),
        (
            {
                "source_channels": 6,
                "loudness": Loudness(integrated_lufs=-14.23, true_peak_dbtp=-0.04),
                "tempo": Tempo(bpm=120.04, confidence=0.9, alternative_bpm=60.02),
                "key": Key(name="A minor", confidence=0.8),
            },
            "MP3, 12.5 s, 6 channels mixed down to stereo, -14.2 LUFS, 120.0 BPM (or 60.0), A minor",
        ),
        ({"loudness": Loudness(integrated_lufs=0.0)}, "MP3, 12.5 s, 0.0 LUFS"),
    ],
)
def test_line(figures, line):
    assert format_clip(ImportClipResponse(**(CLIP | figures))) == line


def test_fields():
    clip = ImportClipResponse(
        **CLIP,
        loudness=Loudness(true_peak_dbtp=0.0),
        key=Key(name="A minor", confidence=0.8),
        not_measured=[NotMeasured(name="tempo", reason="an error")],
    )
    assert {label: text for label, text in clip_fields(clip, Path("[x].mp3")) if text} == {
        "clip": "c",
        "file": r"\[x].mp3",
        "audio": "12.5 s, 44.1 kHz stereo",
        "from": "MP3",
        "true peak": "0.0 dBTP",
        "key": "A minor, confidence 0.80",
        "not measured": "tempo (an error)",
    }
