"""What a file's tags say: always that an AI made it, with which model, and for which generation."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from service_runtime.errors import InvalidArgument

MAX_TAG_CHARACTERS = 200
MAX_BPM = 1000.0
COMMENT = re.compile(r"AI-generated music; generation=([0-9a-f-]{36}); attempt=(\d{1,10});")
"""How every comment begins; the library reads the attempt from it."""

INFO_NAMES = "title", "artist", "comment", "software", "genre", "copyright"
"""soundfile's names of the tags that we write."""


@dataclass(frozen=True)
class Tags:
    """What the maker of the audio says of it; empty or 0 where it is not known."""

    model_name: str
    model_version: str
    genre: str
    bpm: float
    key: str
    license: str


def clean_tags(tags: Tags, field: str) -> Tags:
    """The tags as they can be written: one line each, at most 200 characters.

    Raises InvalidArgument, the field named under `field`, for a tempo that is none.
    """
    if not (math.isfinite(tags.bpm) and 0 <= tags.bpm <= MAX_BPM):
        raise InvalidArgument(f"{field}.bpm", f"must be 0 to {MAX_BPM:.0f} beats a minute, not {tags.bpm}")
    return Tags(
        model_name=_clean(tags.model_name) or "unknown model",
        model_version=_clean(tags.model_version),
        genre=_clean(tags.genre),
        bpm=tags.bpm,
        key=_clean(tags.key),
        license=_clean(tags.license),
    )


def info_tags(tags: Tags, generation_id: str, attempt: int, generator: str) -> dict[str, str]:
    """LIST/INFO tags by soundfile's names, for cleaned tags. `generator` is our own name and version.

    There is no date: the same generation gives the same file on any day, and the library's folders have the day.
    """
    tempo = f"{tags.bpm:g} BPM" if tags.bpm else ""
    model = " ".join(filter(None, [tags.model_name, tags.model_version]))
    facts = {"generator": generator, "model": model, "bpm": f"{tags.bpm:g}" if tags.bpm else "", "key": tags.key}
    marking = f"AI-generated music; generation={generation_id}; attempt={attempt}; "
    written = {
        "title": ", ".join(filter(None, [tags.genre, tags.key, tempo])) or "Generated music",
        "artist": f"{model} (AI)",
        "comment": marking + "; ".join(f"{name}={value}" for name, value in facts.items() if value),
        "software": generator,
        "genre": tags.genre,
        "copyright": tags.license,
    }
    return {name: value for name, value in written.items() if value}


def info_of(file: Any) -> dict[str, str]:
    """The tags of an open soundfile.SoundFile that `info_tags` gave it."""
    return {name: value for name in INFO_NAMES if (value := getattr(file, name))}


def _clean(text: str) -> str:
    # Control and format characters (line ends, NUL, direction marks) have no place in a one-line tag.
    visible = "".join(" " if unicodedata.category(character)[0] == "C" else character for character in text)
    return " ".join(visible.split())[:MAX_TAG_CHARACTERS].rstrip()
