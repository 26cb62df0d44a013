"""The content of file tags. They always say that the file is AI-generated, by which model and for which generation."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from dgx_music.errors import InvalidArgument
from export_service.analysis.analyzer import NO_ANALYSIS, Analysis

MAX_TAG_CHARACTERS = 200
MAX_PROMPT_TAG_CHARACTERS = 2000
MAX_COMMENT_BYTES = 2000
"""libsndfile 1.2.2 ignores INFO texts of 2048 bytes or more."""
MAX_BPM = 1000.0
BPM_DIGITS = 2
"""Digits after the decimal point of a measured tempo; more would suggest false precision."""
UNKNOWN_MODEL = "unknown model"
TITLE_BPM_DIGITS = 1
AI_LABEL = "AI-generated music"
COMMENT_PATTERN = re.compile(rf"{AI_LABEL}; generation=([0-9a-f-]{{36}}); attempt=(\d{{1,10}});")
"""How every comment starts; the library reads the attempt from it."""
PROMPT_SEPARATOR = "; prompt="
"""Introduces the last field of a comment, the only one that may contain semicolons."""


@dataclass(frozen=True)
class Tags:
    """What the client that sends the audio knows about it; a value that it does not know is empty or 0."""

    model_name: str
    model_version: str
    genre: str
    bpm: float
    key: str
    license: str
    prompt: str = ""
    """Also empty if it must not be written into the file."""


@dataclass(frozen=True)
class FileTags:
    """What is written into a file, independent of its format. A value that is not known is empty or 0.

    There is no date, so that the same generation gives the same file on any day; the library's folders contain the day.
    """

    generation_id: str
    attempt: int
    generator: str
    """Name and version of this software."""
    model: str
    """Name and version."""
    genre: str = ""
    bpm: float = 0.0
    key: str = ""
    license: str = ""
    prompt: str = ""

    @property
    def title(self) -> str:
        """The title that music players show."""
        tempo = f"{round(self.bpm, TITLE_BPM_DIGITS):g} BPM" if self.bpm else ""
        return ", ".join(filter(None, [self.genre, self.key, tempo])) or "Generated music"

    @property
    def artist(self) -> str:
        """The artist: the model, labelled as an AI."""
        return f"{self.model} (AI)"

    @property
    def comment(self) -> str:
        """All values, so that `parse_comment` can restore them. The end is cut off if the comment gets too long."""
        text = self._join("generation", "attempt", "bpm", "key", "generator", "model", "genre", "license", "prompt")
        return text.encode()[:MAX_COMMENT_BYTES].decode(errors="ignore")

    @property
    def description(self) -> str:
        """The AI disclosure for a broadcast file, whose description is cut off: shortest values first."""
        return self._join("generation", "generator", "model")

    def _join(self, *names: str) -> str:
        values = {
            **self.__dict__,
            "generation": self.generation_id,
            "bpm": f"{self.bpm:g}" if self.bpm else "",
        }
        return "; ".join([AI_LABEL, *(f"{name}={values[name]}" for name in names if values[name])])

    @classmethod
    def parse_comment(cls, comment: str, generation_id: str) -> FileTags:
        """Restores the tags from the comment of this generation's file, as far as the comment contains them."""
        fields, _, prompt = comment.partition(PROMPT_SEPARATOR)
        values = dict(field.partition("=")[::2] for field in fields.split("; "))
        return cls(
            generation_id=generation_id,
            attempt=int(values.get("attempt", 0)),
            generator=values.get("generator", ""),
            model=values.get("model", UNKNOWN_MODEL),
            genre=values.get("genre", ""),
            bpm=float(values.get("bpm", 0)),
            key=values.get("key", ""),
            license=values.get("license", ""),
            prompt=prompt,
        )


def clean_tags(tags: Tags, field: str) -> Tags:
    """Returns the tags in writable form: one line each, at most 200 characters, the prompt at most 2000.

    Raises InvalidArgument for an invalid tempo; `field` is the path of the tags in the request.
    """
    if not (math.isfinite(tags.bpm) and 0 <= tags.bpm <= MAX_BPM):
        raise InvalidArgument(f"{field}.bpm", f"must be 0 to {MAX_BPM:.0f} beats per minute, not {tags.bpm}")
    return Tags(
        model_name=_clean_field(tags.model_name) or UNKNOWN_MODEL,
        model_version=_clean_field(tags.model_version),
        genre=_clean_field(tags.genre),
        bpm=tags.bpm,
        key=_clean_field(tags.key),
        license=_clean_field(tags.license),
        prompt=_clean(tags.prompt, MAX_PROMPT_TAG_CHARACTERS),
    )


def build_file_tags(
    tags: Tags, generation_id: str, attempt: int, generator: str, analysis: Analysis = NO_ANALYSIS
) -> FileTags:
    """Builds the tags of a file from cleaned tags. A tempo or key that they lack is taken from the analysis."""
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


def _clean_field(text: str) -> str:
    """Also removes the character that separates the fields of a comment."""
    return _clean(text.replace(";", ","), MAX_TAG_CHARACTERS)


def _clean(text: str, max_characters: int) -> str:
    # Control and format characters (line ends, NUL, direction marks) do not belong in a one-line tag.
    visible = "".join(" " if unicodedata.category(character)[0] == "C" else character for character in text)
    return " ".join(visible.split())[:max_characters].rstrip()
