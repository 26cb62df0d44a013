"""Keyword arguments become the request that the contract means."""

from __future__ import annotations

import uuid

import pytest

from dgx_music.audio.v1.audio_pb2 import FileFormat, LoudnessProfile
from dgx_music.client.generation_options import (
    FORMATS,
    build_output,
    build_request,
    build_requests,
    is_id,
    name_argument,
)
from dgx_music.errors import InvalidArgument


def test_options_that_are_not_given_are_left_to_the_server() -> None:
    request = build_request("a", {})
    assert {field.name for field, _ in request.ListFields()} == {"request_id", "prompt"}
    assert uuid.UUID(request.request_id)
    assert build_request("a", {"seed": None, "model": None, "metadata": None}).HasField("seed") is False
    with pytest.raises(InvalidArgument, match=r"duration: must be 0.1 to 3600 s, not 0"):
        build_request("a", {"duration": 0})
    with pytest.raises(InvalidArgument, match="wrong type"):
        build_request("a", {"also": 3})  # type: ignore[typeddict-item]


def test_every_option_reaches_its_field() -> None:
    source = str(uuid.uuid4())
    request = build_request(
        "a",
        {
            "duration": 3,
            "model": "m",
            "seed": 0,
            "temperature": 0.5,
            "top_k": 0,
            "top_p": 0.25,
            "guidance": 2,
            "continue_from": source,
            "continue_seconds": 5,
            "priority": -3,
            "metadata": {"a": {"b": [1, None]}},
            "format": "OPUS",
            "sample_rate": 48_000,
            "channels": 1,
            "bit_rate": 96,
            "quality": 3,
            "loudness": "none",
            "ceiling": 0,
        },
    )
    assert (request.duration_seconds, request.model_name, request.seed, request.priority) == (3, "m", 0, -3)
    assert request.HasField("seed")
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.guidance_scale) == (0.5, 0, 0.25, 2)
    assert sampling.HasField("top_k")
    assert (request.continuation.source_id, request.continuation.seconds) == (source, 5)
    assert request.metadata["a"]["b"][0] == 1
    output = request.output
    assert (output.format, output.sample_rate_hz, output.channels) == (FileFormat.FILE_FORMAT_OGG_OPUS, 48_000, 1)
    assert (output.bit_rate_kbps, output.quality, output.ceiling_dbtp) == (96, 3, 0)
    assert output.profile == LoudnessProfile.LOUDNESS_PROFILE_NONE


def test_every_format_of_the_contract_has_a_name() -> None:
    assert sorted(FORMATS.values()) == FileFormat.values()[1:]
    for name, depth, wanted in (
        ("wav", 16, "WAV_PCM_16"),
        (None, 32, "WAV_PCM_32"),
        ("flac", 24, "FLAC_24"),
        ("aiff-float", None, "AIFF_FLOAT"),
        ("ogg", None, "OGG_VORBIS"),
    ):
        output = build_output({"format": name, "bit_depth": depth})
        assert output is not None
        assert output.format == FileFormat.Value(f"FILE_FORMAT_{wanted}")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"bit_depth": 24, "format": "mp3"}, "bit_depth"),
        ({"continue_seconds": 3}, "continue_seconds"),
        ({"continue_from": 3}, "continue_from"),
        ({"metadata": {"a": object()}}, "metadata"),
        ({"duration": "long"}, "options"),
        ({"seed": 2**70}, "options"),
    ],
)
def test_what_has_the_wrong_form_is_named(options: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        build_request("a", options)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_unknown_option_of_a_request_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"requests\[1\]\.durations: is not an option; did you mean 'duration'\?"):
        build_requests(["a", {"prompt": "b", "durations": 3}], {})  # type: ignore[typeddict-unknown-key]


def test_fields_of_the_contract_are_named_as_arguments() -> None:
    for field, argument in (
        ("duration_seconds", "duration"),
        ("requests[3].model_name", "requests[3].model"),
        ("requests[0].output.quality", "requests[0].quality"),
        ("sampling.top_p", "top_p"),
        ("output.format", "format"),
        ("continuation.seconds", "continue_seconds"),
        ("prompt", "prompt"),
    ):
        assert name_argument(InvalidArgument(field, "is wrong")).field == argument


def test_ids_differ_from_prompts() -> None:
    assert is_id("3F0E4A52-6f5e-4e40-9a58-1f6d0a5b7c11")
    assert not any(map(is_id, ("", "techno", "3f0e4a526f5e4e409a581f6d0a5b7c11")))
