"""The content of file tags. They always say that the file is AI-generated, by which model and for which generation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import ParamSpec, TypeVar

from dgx_music.limits import MAX_TEMPO_BPM
from export_service.analysis.analyzer import NO_ANALYSIS, Analysis
from export_service.tagging.cover import Cover
from export_service.tagging.sections import Section
from export_service.tagging.tag_text import clean_text, truncate_utf8
from service_runtime.audio.output_options import NO_PUBLICATION, PublicationTags
from service_runtime.validation import check_range

P = ParamSpec("P")
Part = TypeVar("Part")

MAX_PARTS = 1000
"""Of a file: chunks, boxes or metadata blocks."""
MAX_TAG_CHARACTERS = 200
MAX_PROMPT_TAG_CHARACTERS = 2000
MAX_COMMENT_BYTES = 2000
"""libsndfile 1.2.2 ignores INFO texts of 2048 bytes or more."""
BPM_DIGITS = 2
"""Digits after the decimal point of a measured tempo; more would suggest false precision."""
UNKNOWN_MODEL = "unknown model"
TITLE_BPM_DIGITS = 1
AI_LABEL = "AI-generated music"
COMMENT_PATTERN = re.compile(rf"{AI_LABEL}; generation=([0-9a-f-]{{36}}); attempt=(\d{{1,10}});")
"""How every comment starts; the library reads the attempt from it."""
PROMPT_SEPARATOR = "; prompt="
"""Introduces the last field of a comment, the only one that may contain separators."""
FIELD_SEPARATOR = "; "
PUBLICATION_FIELDS = ("title", "artist", "album")


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
    publication: PublicationTags = NO_PUBLICATION
    """Replaces title and artist; the comment still discloses that the file is AI-generated."""
    cover: Cover | None = None
    chosen_genre: str | None = None
    """The genre before a user edited it; None if nobody did."""
    sections: tuple[Section, ...] = ()
    """In the order of their start."""

    @property
    def title(self) -> str:
        """The title that music players show."""
        return self.publication.title or self._describe()

    def _describe(self) -> str:
        tempo = f"{round(self.bpm, TITLE_BPM_DIGITS):g} BPM" if self.bpm else ""
        return ", ".join(filter(None, [self.genre, self.key, tempo])) or "Generated music"

    @property
    def artist(self) -> str:
        """The artist: the model, labelled as an AI, unless the publisher names another."""
        return self.publication.artist or f"{self.model} (AI)"

    @property
    def album(self) -> str:
        """The album; only a publisher gives it."""
        return self.publication.album

    @property
    def comment(self) -> str:
        """What was generated, whatever the publisher calls it, so that `parse_comment` can restore it. The end is cut
        off if the comment gets too long.
        """
        names = ("generation", "attempt", "bpm", "key", "generator", "model", "genre", "edited_genre", "license")
        return truncate_utf8(self._join(*names, "prompt"), MAX_COMMENT_BYTES)

    @property
    def description(self) -> str:
        """The AI disclosure for a broadcast file, whose description is cut off: shortest values first."""
        return self._join("generation", "generator", "model")

    def _join(self, *names: str) -> str:
        values = {
            **self.__dict__,
            "generation": self.generation_id,
            "genre": self.genre if self.chosen_genre is None else self.chosen_genre,
            "edited_genre": "" if self.chosen_genre is None else self.genre,
            "bpm": f"{self.bpm:g}" if self.bpm else "",
        }
        return FIELD_SEPARATOR.join([AI_LABEL, *(f"{name}={values[name]}" for name in names if values[name])])

    def with_genre(self, genre: str) -> FileTags:
        """Returns the tags with this genre, or if it is empty, with the one that was chosen before any edit."""
        chosen = self.genre if self.chosen_genre is None else self.chosen_genre
        return replace(self, genre=genre or chosen, chosen_genre=chosen if genre not in ("", chosen) else None)

    @classmethod
    def parse_comment(cls, comment: str, generation_id: str) -> FileTags:
        """Restores the tags from the comment of this generation's file, as far as the comment contains them."""
        fields, _, prompt = comment.partition(PROMPT_SEPARATOR)
        values = dict(field.partition("=")[::2] for field in fields.split(FIELD_SEPARATOR))
        genre, edited_genre = values.get("genre", ""), values.get("edited_genre", "")
        return cls(
            generation_id=generation_id,
            attempt=int(values.get("attempt", 0)),
            generator=values.get("generator", ""),
            model=values.get("model", UNKNOWN_MODEL),
            genre=edited_genre or genre,
            chosen_genre=genre if edited_genre else None,
            bpm=float(values.get("bpm", 0)),
            key=values.get("key", ""),
            license=values.get("license", ""),
            prompt=prompt,
        )


def clean_tags(tags: Tags, field: str) -> Tags:
    """Returns the tags in writable form: one line each, at most 200 characters, the prompt at most 2000.

    Raises InvalidArgument for an invalid tempo; `field` is the path of the tags in the request.
    """
    check_range(f"{field}.bpm", tags.bpm, 0, MAX_TEMPO_BPM, "BPM")
    return Tags(
        model_name=clean_tag_field(tags.model_name) or UNKNOWN_MODEL,
        model_version=clean_tag_field(tags.model_version),
        genre=clean_tag_field(tags.genre),
        bpm=tags.bpm,
        key=clean_tag_field(tags.key),
        license=clean_tag_field(tags.license),
        prompt=clean_text(tags.prompt, MAX_PROMPT_TAG_CHARACTERS),
    )


def clean_publication(publication: PublicationTags) -> PublicationTags:
    """Returns the texts in writable form: one line each, at most 200 characters."""
    texts = (getattr(publication, name) for name in PUBLICATION_FIELDS)
    return PublicationTags(*(clean_text(text, MAX_TAG_CHARACTERS) for text in texts))


def restore_tags(texts: Mapping[str, str], generation_id: str) -> FileTags:
    """Restores the tags from title, artist, album and comment of this generation's file, as far as it has them.

    The publication is what differs from the title and the artist that the server would choose.
    """
    tags = FileTags.parse_comment(texts.get("comment", ""), generation_id)
    given = {name: text for name in PUBLICATION_FIELDS if (text := texts.get(name, "")) != getattr(tags, name)}
    return replace(tags, publication=PublicationTags(**given))


def build_file_tags(
    tags: Tags,
    generation_id: str,
    attempt: int,
    generator: str,
    analysis: Analysis = NO_ANALYSIS,
    publication: PublicationTags = NO_PUBLICATION,
    sections: Sequence[Section] = (),
) -> FileTags:
    """Builds the tags of a file from cleaned tags. A tempo or key that they lack is taken from the analysis.

    `publication` and the names of the sections, which are in frames of the file, are cleaned here.
    """
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
        publication=clean_publication(publication),
        sections=tuple(replace(section, name=clean_text(section.name, MAX_TAG_CHARACTERS)) for section in sections),
    )


def clean_tag_field(text: str) -> str:
    """Returns the text in writable form, without the character that separates the fields of a comment."""
    return clean_text(text.replace(";", ","), MAX_TAG_CHARACTERS)


def limit_parts(walk: Callable[P, Iterator[Part]]) -> Callable[P, Iterator[Part]]:
    """Has a walk through the parts of a file raise ValueError after MAX_PARTS: zeros, as a power cut leaves them, would
    be millions of empty parts.
    """

    @wraps(walk)
    def limited(*args: P.args, **kwargs: P.kwargs) -> Iterator[Part]:
        for number, part in enumerate(walk(*args, **kwargs)):
            if number == MAX_PARTS:
                raise ValueError(f"it has more than {MAX_PARTS} parts")
            yield part

    return limited
