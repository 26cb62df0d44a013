"""A generation in words."""

from __future__ import annotations

from google.protobuf.struct_pb2 import Struct

from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.cli.display.summary import facts_of, metadata_of

MEASURED = {
    "measured_bpm": 127.96,
    "measured_bpm_confidence": 0.714,
    "measured_bpm_alternative": 63.98,
    "measured_key": "A minor",
    "measured_key_confidence": 0.88,
}


def told(**metadata: str | float) -> dict[str, str]:
    struct = Struct()
    struct.update(metadata)
    return dict(facts_of(Generation(metadata=struct, sample_rate_hz=32_000, channels=2), ""))


def test_what_was_heard_is_told_where_the_model_does_not_know_it() -> None:
    facts = told(bpm=128, key="C major", **MEASURED)
    assert (facts["tempo"], facts["key"], facts["measured"]) == ("128 BPM", "C major", "")
    assert told(bpm=128, **MEASURED)["measured"] == "A minor, confidence 0.88"
    assert told(key="C major", **MEASURED)["measured"] == "128.0 BPM (or 64.0), confidence 0.71"
    assert told(**MEASURED)["measured"] == "128.0 BPM (or 64.0), confidence 0.71; A minor, confidence 0.88"


def test_what_was_not_heard_is_not_told() -> None:
    assert told()["measured"] == ""
    key_only = {name: value for name, value in MEASURED.items() if "key" in name}
    assert told(**key_only)["measured"] == "A minor, confidence 0.88"
    tempo_only = {name: value for name, value in MEASURED.items() if "bpm" in name}
    assert told(**tempo_only)["measured"] == "128.0 BPM (or 64.0), confidence 0.71"


def test_dynamics() -> None:
    assert told(rms_dbfs=-18.24, peak_to_loudness_lu=12.31)["dynamics"] == "peak 12.3 LU above loudness, -18.2 dBFS RMS"
    assert told(rms_dbfs=-80.0)["dynamics"] == "-80.0 dBFS RMS"
    assert told(rms_dbfs=-18.0, largest_reduction_db=2.34)["dynamics"] == "-18.0 dBFS RMS, limited by up to 2.3 dB"
    assert told()["dynamics"] == ""


def test_where_the_file_is_marked() -> None:
    assert told(provenance="INFO, BEXT, C2PA")["marked"] == "AI-generated, in INFO, BEXT, C2PA"
    assert told(provenance="VORBIS_COMMENT")["marked"] == "AI-generated, in VORBIS COMMENT"
    assert told()["marked"] == ""


def test_metadata_has_a_line_each_by_its_own_name() -> None:
    generation = Generation()
    generation.metadata.update({"take": 3, "share": 0.25, "mood": "[dark]", "tags": ["a", 1], "final": True, "bpm": 84})
    assert metadata_of(generation) == (
        ("final", "true"),
        ("mood", "\\[dark]"),
        ("share", "0.25"),
        ("tags", '["a", 1.0]'),
        ("take", "3"),
    )
