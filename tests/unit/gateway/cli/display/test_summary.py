"""The fields that describe a generation."""

from __future__ import annotations

from google.protobuf.struct_pb2 import Struct

from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.cli.display.summary import metadata_fields, summary_fields

MEASURED = {
    "measured_bpm": 127.96,
    "measured_bpm_confidence": 0.714,
    "measured_bpm_alternative": 63.98,
    "measured_key": "A minor",
    "measured_key_confidence": 0.88,
}


def fields_for(**metadata: str | float) -> dict[str, str]:
    struct = Struct()
    struct.update(metadata)
    return dict(summary_fields(Generation(metadata=struct, sample_rate_hz=32_000, channels=2), ""))


def test_measured_tempo_and_key_are_shown_unless_model_states_them() -> None:
    fields = fields_for(bpm=128, key="C major", **MEASURED)
    assert (fields["tempo"], fields["key"], fields["measured"]) == ("128 BPM", "C major", "")
    assert fields_for(bpm=128, **MEASURED)["measured"] == "A minor, confidence 0.88"
    assert fields_for(key="C major", **MEASURED)["measured"] == "128.0 BPM (or 64.0), confidence 0.71"
    assert fields_for(**MEASURED)["measured"] == "128.0 BPM (or 64.0), confidence 0.71; A minor, confidence 0.88"


def test_missing_measurements_are_not_shown() -> None:
    assert fields_for()["measured"] == ""
    key_only = {name: value for name, value in MEASURED.items() if "key" in name}
    assert fields_for(**key_only)["measured"] == "A minor, confidence 0.88"
    tempo_only = {name: value for name, value in MEASURED.items() if "bpm" in name}
    assert fields_for(**tempo_only)["measured"] == "128.0 BPM (or 64.0), confidence 0.71"


def test_dynamics_are_joined() -> None:
    assert (
        fields_for(rms_dbfs=-18.24, peak_to_loudness_lu=12.31)["dynamics"]
        == "peak 12.3 LU above loudness, -18.2 dBFS RMS"
    )
    assert fields_for(rms_dbfs=-80.0)["dynamics"] == "-80.0 dBFS RMS"
    assert (
        fields_for(rms_dbfs=-18.0, largest_reduction_db=2.34)["dynamics"] == "-18.0 dBFS RMS, limited by up to 2.3 dB"
    )
    assert fields_for()["dynamics"] == ""


def test_figure_without_a_value_is_shown_with_its_reason() -> None:
    assert fields_for(not_measured="tempo: a fault; key: a fault")["not measured"] == "tempo: a fault; key: a fault"
    assert fields_for()["not measured"] == ""


def test_time_of_a_resumed_export_is_not_shown_as_a_speed() -> None:
    def shown(**metadata: float) -> str:
        generation = Generation(generation_time_seconds=0.2, duration_seconds=60, sample_rate_hz=32_000, channels=2)
        generation.metadata.update(metadata)
        return dict(summary_fields(generation, ""))["generated in"]

    assert shown() == "0.20 s, 300\u00d7 real time"
    assert shown(audio_attempt=1) == "0.20 s, from the audio of attempt 1"


def test_unknown_channel_layout_is_counted() -> None:
    audio = dict(summary_fields(Generation(sample_rate_hz=48_000, channels=6), ""))["audio"]
    assert audio == "0 s, 48 kHz 6 channels, WAV PCM 24"


def test_provenance_marks_are_listed() -> None:
    assert fields_for(provenance="INFO, BEXT, C2PA")["marked"] == "AI-generated, in INFO, BEXT, C2PA"
    assert fields_for(provenance="VORBIS_COMMENT")["marked"] == "AI-generated, in VORBIS COMMENT"
    assert fields_for()["marked"] == ""


def test_metadata_is_listed_by_name() -> None:
    generation = Generation()
    generation.metadata.update({"take": 3, "share": 0.25, "mood": "[dark]", "tags": ["a", 1], "final": True, "bpm": 84})
    assert metadata_fields(generation) == (
        ("final", "true"),
        ("mood", "\\[dark]"),
        ("share", "0.25"),
        ("tags", '["a", 1.0]'),
        ("take", "3"),
    )
