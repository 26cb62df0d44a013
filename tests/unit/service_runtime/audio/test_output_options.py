"""What a file is to be: what audio becomes by it, and what of it is kept."""

from __future__ import annotations

import pytest

from dgx_music.audio.v1 import audio_pb2
from service_runtime.audio.output_options import FileFormat, LoudnessProfile, OutputOptions
from service_runtime.rpc.output_converters import output_options_from_proto, output_options_to_proto


@pytest.mark.parametrize(
    ("options", "source", "becomes"),
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
def test_what_audio_becomes(options: OutputOptions, source: tuple[int, int], becomes: tuple[int, int]) -> None:
    assert options.resolve_for_source(*source) == becomes


@pytest.mark.parametrize(
    "options",
    [
        OutputOptions(),
        OutputOptions(FileFormat.MP3, 44_100, 1, LoudnessProfile.NONE, None, 0.0),
        OutputOptions(FileFormat.WAV_FLOAT, 0, 2, None, -70.0, None, tag_prompt=True),
    ],
)
def test_there_and_back_again(options: OutputOptions) -> None:
    assert OutputOptions.from_dict(options.to_dict()) == options
    assert output_options_from_proto(output_options_to_proto(options), "output") == options


def test_unset_is_the_default_and_nothing_is_kept_of_it() -> None:
    assert output_options_from_proto(audio_pb2.OutputOptions(), "output") == OutputOptions()
    assert output_options_from_proto(audio_pb2.OutputOptions(profile=0), "output") == OutputOptions()  # type: ignore[arg-type]
    assert OutputOptions().to_dict() == {}
