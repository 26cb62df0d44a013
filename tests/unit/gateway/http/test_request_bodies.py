"""What the bodies of requests mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dgx_music.errors import InvalidArgument
from gateway.http.music_request import MusicRequest, RequestBody
from gateway.http.request_bodies import (
    AudioGenerateBody,
    MusicBody,
    MusicStreamBody,
    SoundGenerationBody,
    SpeechBody,
)
from gateway.http.response_formats import SPEECH_PCM, ResponseFormat


def parse(
    body: type[RequestBody], query: str = "", headers: dict[str, str] | None = None, **fields: Any
) -> MusicRequest:
    output = {"output_format": query} if query else {}
    return body.parse(json.dumps(fields).encode()).to_music_request(output, headers or {})


def problem_field(body: type[RequestBody], **fields: Any) -> str | None:
    with pytest.raises(InvalidArgument) as error:
        parse(body, **fields)
    return error.value.field


def test_speech_of_openai() -> None:
    request = parse(SpeechBody, input="lo-fi", instructions="with rain", model="gpt-4o-mini-tts", voice={"id": "x"})
    assert request == MusicRequest("lo-fi, with rain", {"format": "mp3"}, ResponseFormat("mp3"))
    request = parse(SpeechBody, input="a", model="musicgen-small", response_format="pcm", seed=3, guidance_scale=4)
    assert request == MusicRequest("a", {"model": "musicgen-small", "seed": 3, "guidance": 4}, SPEECH_PCM)


@pytest.mark.parametrize(
    ("fields", "is_live", "as_events"),
    [
        ({}, False, False),
        ({"stream_format": "audio"}, True, False),
        ({"stream": True}, True, False),
        ({"stream_format": "sse"}, True, True),
        ({"stream_format": None, "speed": None}, False, False),
    ],
)
def test_speech_is_streamed_on_request(fields: dict[str, object], is_live: bool, as_events: bool) -> None:
    request = parse(SpeechBody, input="a", response_format="wav", **fields)
    assert (request.is_live, request.as_events) == (is_live, as_events)


def test_audio_generate_of_vllm_omni() -> None:
    request = parse(AudioGenerateBody, input="rain", audio_length=10, num_inference_steps=100, model="stabilityai/x")
    assert request == MusicRequest("rain", {"duration": 10, "format": "wav-16"}, ResponseFormat("wav"))
    request = parse(AudioGenerateBody, input="rain", num_inference_steps=100, negative_prompt="wind", model="mine")
    assert request.options == {"model": "mine", "format": "wav-16", "steps": 100, "negative": "wind"}


def test_what_shapes_the_music_is_passed_on() -> None:
    fields = {"negative_prompt": "drums", "melody": "id", "adapters": {"lofi": 0.5}, "steps": 4, "loop_bars": 8}
    request = parse(SpeechBody, input="a", response_format="wav", **fields)
    expected = {"negative": "drums", "melody": "id", "adapters": {"lofi": 0.5}, "steps": 4, "loop": 8}
    assert request.options == {**expected, "format": "wav-16"}
    assert parse(SoundGenerationBody, text="a", lyrics="la").options["lyrics"] == "la"
    assert parse(MusicBody, prompt="a", lyrics_text="la").options["lyrics"] == "la"


def test_sound_generation_of_localai_sends_wav_and_of_elevenlabs_mp3() -> None:
    fields = {"text": "house", "model_id": "sketch", "do_sample": False, "bpm": 124, "keyscale": "Ab major"}
    request = parse(SoundGenerationBody, caption="dark", lyrics="", **fields)
    assert request.prompt == "house, dark, at 124 BPM, in Ab major"
    assert request.options == {"model": "sketch", "format": "wav-16", "top_k": 1}
    request = parse(SoundGenerationBody, headers={"xi-api-key": "x"}, text="house", prompt_influence=0.3)
    assert request.options == {"format": "mp3", "sample_rate": 44_100, "bit_rate": 128, "guidance": 3.0}
    request = parse(SoundGenerationBody, "wav", headers={"xi-api-key": "x"}, text="house", duration_seconds=None)
    assert request.options == {"format": "wav-16"}


def test_music_of_elevenlabs() -> None:
    request = parse(MusicBody, prompt="house", music_length_ms=30_000, model_id="music_v1", force_instrumental=True)
    assert request.options == {"duration": 30.0, "format": "mp3", "sample_rate": 44_100, "bit_rate": 128}
    assert not request.is_live
    assert parse(MusicStreamBody, "pcm_32000", prompt="house").is_live


@pytest.mark.parametrize(
    ("body", "fields", "field"),
    [
        (SpeechBody, {}, "input"),
        (SpeechBody, {"input": 1}, "input"),
        (SpeechBody, {"input": "a", "speed": 1.5}, "speed"),
        (SpeechBody, {"input": "a", "response_format": "midi"}, "response_format"),
        (SpeechBody, {"input": "a", "seed": "many"}, "seed"),
        (SoundGenerationBody, {"text": "a", "prompt_influence": 2}, "prompt_influence"),
        (SoundGenerationBody, {"text": "a", "loop": True}, "loop"),
        (MusicBody, {}, "prompt"),
        (MusicBody, {"composition_plan": {"sections": []}}, "composition_plan"),
    ],
)
def test_field_at_fault_is_named(body: type[RequestBody], fields: dict[str, object], field: str) -> None:
    assert problem_field(body, **fields) == field


def test_body_that_is_no_json_object_is_rejected() -> None:
    for content in (b"", b"{", b"[]", b"\xff"):
        with pytest.raises(InvalidArgument) as error:
            SpeechBody.parse(content)
        assert error.value.field == "body"


@pytest.mark.parametrize(
    ("body", "argument", "field"),
    [
        (SpeechBody(input=""), "prompt", "input"),
        (SpeechBody(input=""), "duration", "duration_seconds"),
        (SpeechBody(input=""), "negative", "negative_prompt"),
        (SpeechBody(input=""), "loop", "loop_bars"),
        (MusicBody(prompt=""), "lyrics", "lyrics_text"),
        (AudioGenerateBody(input=""), "duration", "audio_length"),
        (SoundGenerationBody(text=""), "guidance", "prompt_influence"),
        (MusicBody(), "duration", "music_length_ms"),
        (MusicBody(), "seed", "seed"),
    ],
)
def test_error_of_the_gateway_gets_the_name_of_the_body(body: RequestBody, argument: str, field: str) -> None:
    assert body.rename(InvalidArgument(argument, "is wrong")).field == field
