"""What a model can do besides generating audio from a prompt, and what of it a request needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from dgx_music.errors import InvalidArgument


class Capability(Enum):
    """What a model can do besides generating audio from a prompt. The contracts have the same names."""

    CONTINUATION = "continue audio"
    NEGATIVE_PROMPT = "be guided away from a text"
    WEIGHTED_PROMPTS = "be guided by several texts"
    SECTIONS = "change its prompt over time"
    MELODY = "follow a melody"
    STYLE = "follow the style of an excerpt"
    ADAPTERS = "take LoRA adapters"
    LYRICS = "sing lyrics"
    STEPS = "take a number of denoising steps"


_CONDITIONS = {
    "negative_prompt": Capability.NEGATIVE_PROMPT,
    "further_prompts": Capability.WEIGHTED_PROMPTS,
    "sections": Capability.SECTIONS,
    "melody": Capability.MELODY,
    "style": Capability.STYLE,
    "adapters": Capability.ADAPTERS,
    "lyrics": Capability.LYRICS,
    "steps": Capability.STEPS,
}
"""Field of a Conditioning → what it needs."""

_MODELS_TO_PULL = {
    Capability.MELODY: "musicgen-melody",
    Capability.STYLE: "musicgen-style",
    Capability.LYRICS: "acestep-v15-xl-turbo-diffusers",
    Capability.STEPS: "stable-audio-open-1.0",
}
"""A model that has the capability. musicgen-small has the others."""

MAX_QUOTED_CHARACTERS = 100
"""How much of an unknown name an error quotes."""


def needed_capabilities(
    conditioning: Mapping[str, Any] | None, *, continuation: bool = False, edit: bool = False
) -> Iterator[tuple[str, Capability]]:
    """Yields each field of a request that needs a capability, and which one.

    `conditioning` has the names and values of the fields that are set; the others say whether the field is set. Any
    model can loop.
    """
    for field, is_set in (("continuation", continuation), ("edit", edit)):
        if is_set:
            yield field, Capability.CONTINUATION
    for name, value in (conditioning or {}).items():
        if value and name in _CONDITIONS:
            yield f"conditioning.{name}", _CONDITIONS[name]


def check_adapter(index: int, name: str, model_name: str, problems: Mapping[str, str]) -> None:
    """Raises InvalidArgument if the adapter in this place of a request is not installed, or if the model can't take it.

    `problems` has the installed adapters, and why the model can't take one; empty if it can.
    """
    if name not in problems:
        if fitting := [own for own, problem in problems.items() if not problem]:
            hint = f"adapters for model {model_name!r}: {', '.join(fitting)}"
        else:
            hint = f"none is installed for model {model_name!r}; put one into adapters/NAME of the data directory"
        problem = f"there is no adapter {name[:MAX_QUOTED_CHARACTERS]!r}; {hint}"
        raise InvalidArgument(f"conditioning.adapters[{index}].name", problem, reason="ADAPTER_NOT_FOUND")
    if problems[name]:
        raise unusable_adapter_error(index, name, model_name, problems[name])


def unusable_adapter_error(index: int, name: str, model_name: str, problem: str) -> InvalidArgument:
    """The error for an adapter that is installed, but that the model can't take."""
    return InvalidArgument(
        f"conditioning.adapters[{index}].name",
        f"model {model_name!r} can't take the adapter {name!r}: {problem}",
        reason="ADAPTER_UNUSABLE",
    )


def unsupported_error(
    field: str, model_name: str, capability: Capability, capable_models: Sequence[str]
) -> InvalidArgument:
    """The error for a request that the model can't fulfil; names the models that can."""
    if capable_models:
        hint = f"models that can: {', '.join(capable_models)}"
    else:
        name = _MODELS_TO_PULL.get(capability, "musicgen-small")
        hint = f"no installed model can; run `dgx-music models pull {name}`"
    return InvalidArgument(field, f"model {model_name!r} can't {capability.value}; {hint}")
