"""The bodies that the endpoints accept: those of OpenAI, ElevenLabs, LocalAI and vLLM-Omni, and what they mean here.

- https://developers.openai.com/api/reference/resources/audio/subresources/speech/methods/create
- https://elevenlabs.io/docs/api-reference/text-to-sound-effects/convert and …/music/compose
- https://localai.io/features/sound-generation
- https://docs.vllm.ai/projects/vllm-omni/en/stable/serving/audio_generate_api/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from dgx_music.errors import InvalidArgument
from gateway.http.music_request import GREEDY_TOP_K, MusicRequest, RequestBody, chosen_model, join_prompt
from gateway.http.response_formats import ResponseFormat, named_format, parse_output_format

FormatName = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
ELEVENLABS_FORMAT = "mp3_44100_128"
"""What ElevenLabs sends unless asked for another."""
FULL_INFLUENCE_GUIDANCE = 10.0
"""Guidance scale for a prompt influence of 1: their default of 0.3 then is the models' of 3."""


class SpeechBody(RequestBody):
    """OpenAI's `/v1/audio/speech`, and what vLLM-Omni adds to it. There is no voice, and speed can't be changed."""

    NAMES: ClassVar[Mapping[str, str]] = {"prompt": "input", "format": "response_format"}

    input: str
    model: str | None = None
    instructions: str | None = None
    response_format: FormatName | None = "mp3"
    speed: float | None = None
    stream: bool | None = None
    stream_format: Literal["audio", "sse"] | None = None

    def to_music_request(self, query: Mapping[str, str], headers: Mapping[str, str]) -> MusicRequest:
        if self.speed not in (None, 1.0):
            raise InvalidArgument("speed", 'must be 1 or left out; say the tempo in the prompt, e.g. "at 140 BPM"')
        file = named_format(self.response_format or "mp3")
        return MusicRequest(
            join_prompt(self.input, self.instructions),
            self.options(file, model=chosen_model(self.model)),
            file,
            is_live=self.stream or self.stream_format is not None,
            as_events=self.stream_format == "sse",
        )


class AudioGenerateBody(RequestBody):
    """vLLM-Omni's `/v1/audio/generate`, for Stable Audio."""

    NAMES: ClassVar[Mapping[str, str]] = {
        "prompt": "input",
        "duration": "audio_length",
        "format": "response_format",
        "steps": "num_inference_steps",
    }

    input: str
    model: str | None = None
    audio_length: float | None = None
    num_inference_steps: int | None = None
    response_format: FormatName | None = "wav"
    stream: bool | None = None

    def to_music_request(self, query: Mapping[str, str], headers: Mapping[str, str]) -> MusicRequest:
        file = named_format(self.response_format or "wav")
        duration = self.duration_seconds if self.audio_length is None else self.audio_length
        steps = self.steps if self.num_inference_steps is None else self.num_inference_steps
        overrides: dict[str, Any] = {"model": chosen_model(self.model), "duration": duration, "steps": steps}
        if overrides["model"] is None:
            # Programs for Stable Audio send these whatever the model: they are for those who have chosen one of ours.
            overrides |= {"steps": None, "negative": None}
        options = self.options(file, **overrides)
        return MusicRequest(self.input, options, file, is_live=bool(self.stream))


class SoundGenerationBody(RequestBody):
    """`/v1/sound-generation` of ElevenLabs and LocalAI. A loop has a number of bars, `loop_bars`."""

    NAMES: ClassVar[Mapping[str, str]] = {
        "prompt": "text",
        "model": "model_id",
        "guidance": "prompt_influence",
        "format": "output_format",
        "sample_rate": "output_format",
        "bit_rate": "output_format",
    }

    text: str
    model_id: str | None = None
    model: str | None = None
    prompt_influence: float | None = Field(default=None, ge=0, le=1)
    do_sample: bool | None = None
    loop: bool | None = None
    caption: str | None = None
    lyrics: str | None = None
    bpm: int | None = None
    keyscale: str | None = None

    def to_music_request(self, query: Mapping[str, str], headers: Mapping[str, str]) -> MusicRequest:
        if self.loop:
            raise InvalidArgument("loop", "needs a length in bars: use loop_bars, and name the tempo in the text")
        # LocalAI, which has no output_format, sends WAV.
        default = ELEVENLABS_FORMAT if "xi-api-key" in headers else "wav"
        file = _output_format(query, default, pcm_channels=1)
        overrides: dict[str, Any] = {"model": chosen_model(self.model_id or self.model), "lyrics": self.lyrics or None}
        if self.prompt_influence is not None:
            overrides["guidance"] = FULL_INFLUENCE_GUIDANCE * self.prompt_influence
        if self.do_sample is False:
            overrides["top_k"] = GREEDY_TOP_K
        tempo = f"at {self.bpm} BPM" if self.bpm else None
        key = f"in {self.keyscale}" if self.keyscale else None
        return MusicRequest(join_prompt(self.text, self.caption, tempo, key), self.options(file, **overrides), file)


class MusicBody(RequestBody):
    """ElevenLabs' `/v1/music`. There are no composition plans."""

    NAMES: ClassVar[Mapping[str, str]] = {
        "duration": "music_length_ms",
        "lyrics": "lyrics_text",
        "model": "model_id",
        "format": "output_format",
        "sample_rate": "output_format",
        "bit_rate": "output_format",
    }

    prompt: str | None = None
    music_length_ms: float | None = None
    model_id: str | None = None
    composition_plan: Any = None
    lyrics_text: str | None = None

    def to_music_request(self, query: Mapping[str, str], headers: Mapping[str, str]) -> MusicRequest:
        if self.composition_plan:
            raise InvalidArgument("composition_plan", "is not supported; describe the music in the prompt")
        if self.prompt is None:
            raise InvalidArgument("prompt", "must not be left out; describe the music")
        file = _output_format(query, ELEVENLABS_FORMAT, pcm_channels=None)
        duration = self.duration_seconds if self.music_length_ms is None else self.music_length_ms / 1000
        overrides = {"model": chosen_model(self.model_id), "duration": duration, "lyrics": self.lyrics_text or None}
        options = self.options(file, **overrides)
        return MusicRequest(self.prompt, options, file)


class MusicStreamBody(MusicBody):
    """ElevenLabs' `/v1/music/stream`: the same, sent while it is being generated if the format is pcm or wav."""

    def to_music_request(self, query: Mapping[str, str], headers: Mapping[str, str]) -> MusicRequest:
        request = super().to_music_request(query, headers)
        return MusicRequest(request.prompt, request.options, request.format, is_live=True)


def _output_format(query: Mapping[str, str], default: str, pcm_channels: int | None) -> ResponseFormat:
    text = query.get("output_format", default)
    return named_format(text) if text == "wav" else parse_output_format(text, pcm_channels)
