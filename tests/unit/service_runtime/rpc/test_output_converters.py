"""OutputOptions as a protobuf message."""

from __future__ import annotations

import pytest

from dgx_music.audio.v1 import audio_pb2
from service_runtime.audio.output_options import FileFormat, LoudnessProfile, OutputOptions, PublicationTags
from service_runtime.rpc.output_converters import output_options_from_proto, output_options_to_proto


@pytest.mark.parametrize(
    "options",
    [
        OutputOptions(),
        OutputOptions(FileFormat.MP3, 44_100, 1, LoudnessProfile.NONE, None, 0.0),
        OutputOptions(FileFormat.WAV_FLOAT, 0, 2, None, -70.0, None, tag_prompt=True),
        OutputOptions(FileFormat.OGG_OPUS, bit_rate_kbps=96, publication=PublicationTags("T", "A", "B")),
        OutputOptions(FileFormat.MP3, quality=0.0, publication=PublicationTags(album="B")),
    ],
)
def test_proto_round_trip(options: OutputOptions) -> None:
    assert output_options_from_proto(output_options_to_proto(options), "output") == options


@pytest.mark.parametrize("message", [audio_pb2.OutputOptions(), audio_pb2.OutputOptions(profile=0)])  # type: ignore[arg-type]
def test_unset_message_is_the_default(message: audio_pb2.OutputOptions) -> None:
    assert output_options_from_proto(message, "output") == OutputOptions()
