"""What shapes music besides its prompt, as keyword arguments, and the messages that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from dgx_music.errors import InvalidArgument
from dgx_music.storage.v1.conditioning_pb2 import (
    Adapter,
    Conditioning,
    Loop,
    Melody,
    PromptSection,
    Style,
    WeightedPrompt,
)


class ConditioningOptions(TypedDict, total=False):
    """What shapes the music besides its prompt. `models()` says which model supports what."""

    negative: str | None
    """What the music is guided away from. Has no effect with `guidance=1`."""
    also: str | Mapping[str, float] | None
    """Further texts that guide the same music, at most 3, with their weights beside the prompt's, which is 1:
    `{"strings": 0.5}`."""
    sections: Sequence[tuple[float, float, str]] | None
    """Parts with prompts of their own, as start and end in seconds and text: `[(0, 16, "calm"), (16, 48, "drums")]`."""
    melody: object
    """A finished generation or a clip, or the id of one, whose melody to follow."""
    melody_start: float | None
    """Where the melody starts in its source, in seconds."""
    style: object
    """A finished generation or a clip, or the id of one, whose style to follow."""
    style_start: float | None
    """Where the excerpt for the style starts in its source, in seconds."""
    text_guidance: float | None
    """How much more the text counts than the style, 1 to 10. Default: 5."""
    adapters: str | Sequence[str] | Mapping[str, float] | None
    """Names of installed LoRA adapters, at most 4, or a dictionary with their scales: `{"lofi": 0.8}`."""
    lyrics: str | None
    """Lyrics to sing; lines such as "[chorus]" name the parts."""
    steps: int | None
    """Number of denoising steps of a diffusion model."""
    loop: int | None
    """Make the music loop after this many bars, at the tempo that the prompt names ("84 BPM")."""
    tempo: float | None
    """Tempo of the loop in beats per minute. Default: the one that the prompt names."""
    beats: int | None
    """Beats in a bar of the loop. Default: 4."""


def build_conditioning(options: ConditioningOptions) -> Conditioning | None:
    """Returns the conditions, or None if there are none. Raises InvalidArgument for what has the wrong form."""
    for name, value, needed in (
        ("melody_start", options.get("melody_start"), "melody"),
        ("style_start", options.get("style_start"), "style"),
        ("text_guidance", options.get("text_guidance"), "style"),
    ):
        if value is not None and options.get(needed) is None:
            raise InvalidArgument(name, f"is only used with {needed}")
    also, adapters = options.get("also") or {}, options.get("adapters") or ()
    weights = {also: 1.0} if isinstance(also, str) else also
    names = [adapters] if isinstance(adapters, str) else adapters
    scales: Mapping[str, float | None] = names if isinstance(names, Mapping) else dict.fromkeys(names)
    conditioning = Conditioning(
        negative_prompt=options.get("negative") or "",
        further_prompts=[WeightedPrompt(prompt=prompt, weight=weight) for prompt, weight in weights.items()],
        sections=[
            PromptSection(start_seconds=start, end_seconds=end, prompt=prompt)
            for start, end, prompt in options.get("sections") or ()
        ],
        adapters=[Adapter(name=name, scale=scale) for name, scale in scales.items()],
        lyrics=options.get("lyrics") or "",
        steps=options.get("steps") or 0,
    )
    if (melody := options.get("melody")) is not None:
        start = options.get("melody_start") or 0.0
        conditioning.melody.CopyFrom(Melody(source_id=id_of(melody, "melody"), start_seconds=start))
    if (style := options.get("style")) is not None:
        start = options.get("style_start") or 0.0
        conditioning.style.CopyFrom(
            Style(source_id=id_of(style, "style"), start_seconds=start, text_guidance=options.get("text_guidance"))
        )
    return conditioning if conditioning.ListFields() else None


def build_loop(options: ConditioningOptions) -> Loop | None:
    """Returns the loop, or None if there is none. Raises InvalidArgument for options that need one."""
    bars = options.get("loop")
    if bars is None:
        for name, value in (("tempo", options.get("tempo")), ("beats", options.get("beats"))):
            if value is not None:
                raise InvalidArgument(name, "is only used with loop, which is a number of bars")
        return None
    return Loop(bars=bars, bpm=options.get("tempo") or 0.0, beats_per_bar=options.get("beats") or 0)


def id_of(source: object, argument: str) -> str:
    """Returns the id of a generation or a clip, or the text that is one. Raises InvalidArgument for anything else."""
    if isinstance(source, str):
        return source
    found = getattr(source, "id", None) or getattr(source, "clip_id", None)
    if not isinstance(found, str):
        raise InvalidArgument(argument, f"must be a generation, a clip, or the id of one, not {source!r:.80}")
    return found
