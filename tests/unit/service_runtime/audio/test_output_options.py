"""The options for a finished file."""

from __future__ import annotations

import pytest

from service_runtime.audio.output_options import FileFormat, LoudnessProfile, OutputOptions


@pytest.mark.parametrize(
    ("options", "source", "expected"),
    [
        (OutputOptions(), (32_000, 2), (32_000, 2)),
        (OutputOptions(sample_rate_hz=44_100, channels=1), (32_000, 2), (44_100, 1)),
        (OutputOptions(FileFormat.OGG_OPUS), (32_000, 1), (48_000, 1)),
        (OutputOptions(FileFormat.OGG_OPUS), (16_000, 1), (16_000, 1)),
        (OutputOptions(FileFormat.OGG_OPUS), (96_000, 1), (48_000, 1)),
        (OutputOptions(FileFormat.MP3), (32_000, 2), (32_000, 2)),
        (OutputOptions(FileFormat.MP3), (12_345, 2), (16_000, 2)),
        (OutputOptions(FileFormat.FLAC_24), (192_000, 2), (192_000, 2)),
    ],
)
def test_resolve_for_source(options: OutputOptions, source: tuple[int, int], expected: tuple[int, int]) -> None:
    assert options.resolve_for_source(*source) == expected


@pytest.mark.parametrize(
    "options",
    [
        OutputOptions(FileFormat.MP3, 44_100, 1, LoudnessProfile.NONE, None, 0.0),
        OutputOptions(FileFormat.WAV_FLOAT, 0, 2, None, -70.0, None, tag_prompt=True),
    ],
)
def test_dict_round_trip(options: OutputOptions) -> None:
    assert OutputOptions.from_dict(options.to_dict()) == options


def test_dict_of_default_options_is_empty() -> None:
    assert OutputOptions().to_dict() == {}
    assert OutputOptions.from_dict({}) == OutputOptions()
