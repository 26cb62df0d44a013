"""What a file's tags say: always that an AI made it, with which model, and for which generation."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from dgx_music.errors import InvalidArgument
from export_service.analysis.analyzer import NOT_ANALYSED, Analysis

MAX_TAG_CHARACTERS = 200
MAX_PROMPT_TAG_CHARACTERS = 2000
MAX_COMMENT_BYTES = 2000
"""libsndfile 1.2.2 passes over an INFO text of 2048 bytes or more."""
MAX_BPM = 1000.0
BPM_DIGITS = 2
"""Of a measured tempo: more would only look exact."""
UNKNOWN_MODEL = "unknown model"
TITLE_BPM_DIGITS = 1
MARKING = "AI-generated music"
COMMENT = re.compile(rf"{MARKING}; generation=([0-9a-f-]{{36}}); attempt=(\d{{1,10}});")
"""How every comment begins; the library reads the attempt from it."""
PROMPT = "; prompt="
"""Begins the last fact of a comment, the only one that may have semicolons in it."""


@dataclass(frozen=True)
class Tags:
    """What the maker of the audio says of it; empty or 0 where it is not known."""

    model_name: str
    model_version: str
    genre: str
    bpm: float
    key: str
    license: str
    prompt: str = ""
    """Empty also where it is not to be written."""


@dataclass(frozen=True)
class FileTags:
    """What is written into a file, whatever its format's names for it are; empty or 0 where it is not known.

    There is no date: the same generation gives the same file on any day, and the library's folders have the day.
    """

    generation_id: str
    attempt: int
    generator: str
    """Our own name and version."""
    model: str
    """Name and version."""
    genre: str = ""
    bpm: float = 0.0
    key: str = ""
    license: str = ""
    prompt: str = ""

    @property
    def title(self) -> str:
        """What music players show."""
        tempo = f"{round(self.bpm, TITLE_BPM_DIGITS):g} BPM" if self.bpm else ""
        return ", ".join(filter(None, [self.genre, self.key, tempo])) or "Generated music"

    @property
    def artist(self) -> str:
        """Who made it."""
        return f"{self.model} (AI)"

    @property
    def comment(self) -> str:
        """All of it, so that `of_comment` can tell; words that are too long for it are cut off at its end."""
        line = self._line("generation", "attempt", "bpm", "key", "generator", "model", "genre", "license", "prompt")
        return line.encode()[:MAX_COMMENT_BYTES].decode(errors="ignore")

    @property
    def description(self) -> str:
        """What marks it, shortest first: a broadcast file's description is cut off."""
        return self._line("generation", "generator", "model")

    def _line(self, *names: str) -> str:
        values = {
            **self.__dict__,
            "generation": self.generation_id,
            "bpm": f"{self.bpm:g}" if self.bpm else "",
        }
        return "; ".join([MARKING, *(f"{name}={values[name]}" for name in names if values[name])])

    @classmethod
    def of_comment(cls, comment: str, generation_id: str) -> FileTags:
        """What the comment of this generation's file was made from, as far as it tells."""
        listed, _, prompt = comment.partition(PROMPT)
        facts = dict(fact.partition("=")[::2] for fact in listed.split("; "))
        return cls(
            generation_id=generation_id,
            attempt=int(facts.get("attempt", 0)),
            generator=facts.get("generator", ""),
            model=facts.get("model", UNKNOWN_MODEL),
            genre=facts.get("genre", ""),
            bpm=float(facts.get("bpm", 0)),
            key=facts.get("key", ""),
            license=facts.get("license", ""),
            prompt=prompt,
        )


def clean_tags(tags: Tags, field: str) -> Tags:
    """The tags as they can be written: one line each, at most 200 characters, the prompt 2000.

    Raises InvalidArgument, the field named under `field`, for a tempo that is none.
    """
    if not (math.isfinite(tags.bpm) and 0 <= tags.bpm <= MAX_BPM):
        raise InvalidArgument(f"{field}.bpm", f"must be 0 to {MAX_BPM:.0f} beats a minute, not {tags.bpm}")
    return Tags(
        model_name=_fact(tags.model_name) or UNKNOWN_MODEL,
        model_version=_fact(tags.model_version),
        genre=_fact(tags.genre),
        bpm=tags.bpm,
        key=_fact(tags.key),
        license=_fact(tags.license),
        prompt=_clean(tags.prompt, MAX_PROMPT_TAG_CHARACTERS),
    )


def file_tags(
    tags: Tags, generation_id: str, attempt: int, generator: str, analysis: Analysis = NOT_ANALYSED
) -> FileTags:
    """For cleaned tags. Tempo and key are what the maker knows, else what was heard."""
    tempo, key = analysis.tempo, analysis.key
    return FileTags(
        generation_id=generation_id,
        attempt=attempt,
        generator=generator,
        model=" ".join(filter(None, [tags.model_name, tags.model_version])),
        genre=tags.genre,
        bpm=tags.bpm or (round(tempo.bpm, BPM_DIGITS) if tempo else 0.0),
        key=tags.key or (key.name if key else ""),
        license=tags.license,
        prompt=tags.prompt,
    )


def _fact(text: str) -> str:
    """Without what ends a fact of a comment."""
    return _clean(text.replace(";", ","), MAX_TAG_CHARACTERS)


def _clean(text: str, most_characters: int) -> str:
    # Control and format characters (line ends, NUL, direction marks) have no place in a one-line tag.
    visible = "".join(" " if unicodedata.category(character)[0] == "C" else character for character in text)
    return " ".join(visible.split())[:most_characters].rstrip()
