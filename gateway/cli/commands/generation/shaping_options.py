"""The values of the options that shape music besides its prompt, and the messages that they make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dgx_music.storage.v1.conditioning_pb2 import (
    Adapter,
    Conditioning,
    Loop,
    Melody,
    PromptSection,
    Style,
    WeightedPrompt,
)
from gateway.cli.commands.generation.audio_sources import AudioSources, parse_source
from gateway.cli.session.command_errors import BAD_INPUT, CommandError

_BARS = re.compile(r"(\d+)\s*(?:bars?)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapingOptions:
    """The value of each option of the same name; the default stands for an option that is not given."""

    negative: str = ""
    also: Sequence[str] = ()
    """TEXT or TEXT:WEIGHT."""
    sections: Sequence[str] = ()
    """FROM:TO in seconds, a space, and the text."""
    melody: str = ""
    melody_start: float = 0.0
    style: str = ""
    style_start: float = 0.0
    text_guidance: float | None = None
    adapters: Sequence[str] = ()
    """NAME or NAME:SCALE."""
    lyrics: str = ""
    steps: int = 0
    loop: str = ""
    tempo: float | None = None
    """In beats per minute."""
    beats: int = 0

    def parse_sources(self) -> AudioSources:
        """Returns the audio to follow. Raises CommandError if it is neither a UUID nor an existing file."""
        given = {"--melody": self.melody, "--style": self.style}
        return {option: parse_source(option, text) for option, text in given.items() if text}

    def build_conditioning(self, source_ids: Mapping[str, str]) -> Conditioning | None:
        """Returns the conditions, with the ids of the audio to follow; None if there are none. Raises CommandError."""
        for option, value, needed in (
            ("--melody-start", self.melody_start, "--melody"),
            ("--style-start", self.style_start, "--style"),
            ("--text-guidance", self.text_guidance, "--style"),
        ):
            if value and needed not in source_ids:
                raise CommandError(f"{option}: can only be used together with {needed}", BAD_INPUT)
        conditioning = Conditioning(
            negative_prompt=self.negative,
            further_prompts=[parse_weighted(text) for text in self.also],
            sections=[parse_section(text) for text in self.sections],
            adapters=[parse_adapter(text) for text in self.adapters],
            lyrics=read_lyrics(self.lyrics),
            steps=self.steps,
        )
        if melody_id := source_ids.get("--melody"):
            conditioning.melody.CopyFrom(Melody(source_id=melody_id, start_seconds=self.melody_start))
        if style_id := source_ids.get("--style"):
            conditioning.style.CopyFrom(
                Style(source_id=style_id, start_seconds=self.style_start, text_guidance=self.text_guidance)
            )
        return conditioning if conditioning.ListFields() else None

    def build_loop(self) -> Loop | None:
        """Returns the loop, or None if there is none. Raises CommandError."""
        if not self.loop:
            for option, value in (("--tempo", self.tempo), ("--beats", self.beats)):
                if value:
                    raise CommandError(f"{option}: can only be used together with --bars", BAD_INPUT)
            return None
        bars = _BARS.fullmatch(self.loop.strip())
        if bars is None:
            raise CommandError(f"--bars: must be a number of bars such as 8, not {self.loop!r}", BAD_INPUT)
        return Loop(bars=min(int(bars[1]), 2**31 - 1), beats_per_bar=self.beats, bpm=self.tempo or 0.0)


def parse_weighted(text: str) -> WeightedPrompt:
    """Reads TEXT or TEXT:WEIGHT. A text that ends in a colon and a number needs a weight after it."""
    prompt, colon, weight = text.rpartition(":")
    try:
        return WeightedPrompt(prompt=prompt, weight=float(weight)) if colon else WeightedPrompt(prompt=text, weight=1.0)
    except ValueError:
        return WeightedPrompt(prompt=text, weight=1.0)


def parse_section(section: str) -> PromptSection:
    """Reads FROM:TO TEXT, in seconds. Raises CommandError."""
    span, _, text = section.strip().partition(" ")
    try:
        start, end = (float(part) for part in span.split(":"))
    except ValueError as error:
        raise CommandError(
            f'--section: {span!r} is not a part of the music; write for example: --section 0:16 "calm piano"',
            BAD_INPUT,
        ) from error
    return PromptSection(start_seconds=start, end_seconds=end, prompt=text.strip())


def parse_adapter(text: str) -> Adapter:
    """Reads NAME or NAME:SCALE. Raises CommandError."""
    name, colon, scale = text.partition(":")
    try:
        return Adapter(name=name, scale=float(scale) if colon else None)
    except ValueError as error:
        raise CommandError(f"--adapter: {scale!r} is not a scale; write for example {name}:0.8", BAD_INPUT) from error


def read_lyrics(text: str) -> str:
    """Returns the lyrics, or the content of the file that @FILE names. Raises CommandError if it can't be read."""
    if not text.startswith("@"):
        return text
    path = Path(text[1:]).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CommandError(f"--lyrics: failed to read {path}: {error.strerror}", BAD_INPUT) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"--lyrics: {path} is not a text file in UTF-8", BAD_INPUT) from error
