"""What a request of any of the endpoints asks for, and what the endpoints have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from dgx_music.client.generation_options import GenerationOptions
from dgx_music.errors import InvalidArgument
from gateway.http.response_formats import ResponseFormat

CLOUD_MODEL = re.compile(r"(tts|gpt|eleven|music_v|stable-audio|stabilityai/)[\w.:/-]*")
"""Names of other services' models, which programs have built in: they get the default model."""
GREEDY_TOP_K = 1


@dataclass(frozen=True, slots=True)
class MusicRequest:
    """A request for music, whichever endpoint it came to."""

    prompt: str
    options: GenerationOptions
    format: ResponseFormat
    is_live: bool = False
    """Whether the audio is sent while it is being generated, if the format allows that."""
    as_events: bool = False
    """Whether it is sent as server-sent events."""


class RequestBody(BaseModel):
    """The JSON body of a request. Fields that are not known are ignored, since every client sends some of its own."""

    model_config = ConfigDict(extra="ignore", strict=False)

    NAMES: ClassVar[Mapping[str, str]] = {}
    """Argument of the client → the field of this body that sets it, where that has another name."""

    duration_seconds: float | None = None
    seed: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    guidance_scale: float | None = None
    loudness: float | Literal["streaming", "default", "broadcast", "none"] | None = None
    continue_from: str | None = None
    negative_prompt: str | None = None
    melody: str | None = None
    style: str | None = None
    adapters: dict[str, float] | list[str] | str | None = None
    steps: int | None = None
    loop_bars: int | None = None
    priority: int | None = None

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Raises InvalidArgument, which names the first field at fault."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise _to_invalid_argument(error) from error

    def to_music_request(self, query: Mapping[str, str], headers: Mapping[str, str]) -> MusicRequest:
        """Returns what is asked for. Raises InvalidArgument."""
        raise NotImplementedError

    def options(self, file: ResponseFormat, **overrides: Any) -> GenerationOptions:
        """Returns the options of the generation, without those that are not given."""
        given = {
            "duration": self.duration_seconds,
            "seed": self.seed,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "guidance": self.guidance_scale,
            "loudness": self.loudness,
            "continue_from": self.continue_from,
            "negative": self.negative_prompt,
            "melody": self.melody,
            "style": self.style,
            "adapters": self.adapters,
            "steps": self.steps,
            "loop": self.loop_bars,
            "priority": self.priority,
            **file.file_options(),
            **overrides,
        }
        return cast(GenerationOptions, {name: value for name, value in given.items() if value is not None})

    def rename(self, error: InvalidArgument) -> InvalidArgument:
        """Returns the error with the name of the field of this body."""
        argument = error.field or ""
        names = {
            "duration": "duration_seconds",
            "guidance": "guidance_scale",
            "negative": "negative_prompt",
            "loop": "loop_bars",
            "tempo": "prompt",
            **self.NAMES,
        }
        # The tempo of a loop is that of the prompt.
        field = names.get(argument, argument)
        return InvalidArgument(field, error.problem, reason=error.reason)


def chosen_model(name: str | None) -> str | None:
    """Returns the name of the model; None, for the default model, if it is one of another service."""
    return None if not name or CLOUD_MODEL.fullmatch(name) else name


def join_prompt(*parts: str | None) -> str:
    """Returns the description of the music, made of the parts that are given."""
    return ", ".join(part.strip() for part in parts if part and part.strip())


def _to_invalid_argument(error: ValidationError) -> InvalidArgument:
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "body"
    problem = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return InvalidArgument(field, problem[:1].lower() + problem[1:])
