"""The names of formats in requests."""

from __future__ import annotations

import pytest

from dgx_music.errors import InvalidArgument
from gateway.http.response_formats import SPEECH_PCM, ResponseFormat, named_format, parse_output_format


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("mp3_44100_128", ResponseFormat("mp3", 44_100, None, 128)),
        ("opus_48000_96", ResponseFormat("opus", 48_000, None, 96)),
        ("pcm_16000", ResponseFormat("pcm", 16_000, 1)),
        ("wav_44100", ResponseFormat("wav", 44_100)),
        ("auto", ResponseFormat("mp3")),
    ],
)
def test_elevenlabs_names(text: str, parsed: ResponseFormat) -> None:
    assert parse_output_format(text, pcm_channels=1) == parsed


@pytest.mark.parametrize("text", ["", "mp3", "ulaw_8000", "mp3_x", "mp3_44100_128_1", "mp3_-1", "mp3_44100_"])
def test_name_that_means_nothing_is_rejected(text: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        parse_output_format(text, pcm_channels=None)
    assert error.value.field == "output_format"


def test_openai_names() -> None:
    assert named_format("pcm") is SPEECH_PCM
    assert named_format("aac").file_options()["format"] == "m4a"
    assert named_format("wav").file_options()["format"] == "wav-16"
    assert (named_format("opus").media_type, named_format("flac").is_pcm) == ("audio/ogg", False)


def test_samples_are_taken_from_whatever_file() -> None:
    assert SPEECH_PCM.file_options() == {}
