"""Names of exported files from a template, such as "{date} {prompt:.40} {seed}"."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from string import Formatter

from google.protobuf.timestamp_pb2 import Timestamp

from dgx_music.limits import MAX_RATING, MAX_SEED
from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.file_names import cut

_TEXT_SPEC = re.compile(r"(.*?)(?:\.([0-9]+))?(s?)", re.DOTALL)
_LONG_NUMBER = re.compile("[0-9]{4}")
"""A width or a precision of a thousand or more is a mistake, and could exhaust the memory."""


class _Text(str):
    """Text that a precision cuts between two graphemes."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        match = _TEXT_SPEC.fullmatch(spec)
        if match is None or match[2] is None:
            return super().__format__(spec)
        return format(cut(self, int(match[2])).rstrip(), match[1] + match[3])


def _created_at(generation: Generation) -> datetime:
    """Returns the time in the local time zone."""
    return generation.created_at.ToDatetime(tzinfo=UTC).astimezone()


def _metadata_number(generation: Generation, *names: str) -> float | None:
    """Returns the first of these values of the metadata that is above 0."""
    values = (generation.metadata.fields[name].number_value for name in names if name in generation.metadata.fields)
    return next((value for value in values if value > 0), None)


def _metadata_text(generation: Generation, *names: str) -> str:
    """Returns the first of these values of the metadata that is a text."""
    values = (generation.metadata.fields[name].string_value for name in names if name in generation.metadata.fields)
    return next(filter(None, values), "")


FIELDS: dict[str, tuple[Callable[[Generation], object], str]] = {
    "date": (_created_at, "%Y-%m-%d"),
    "time": (_created_at, "%H-%M-%S"),
    "prompt": (lambda generation: " ".join(generation.prompt.split()), ""),
    "bpm": (lambda generation: _metadata_number(generation, "bpm", "measured_bpm"), "g"),
    "key": (lambda generation: _metadata_text(generation, "key", "measured_key"), ""),
    "genre": (lambda generation: _metadata_text(generation, "genre"), ""),
    "seed": (lambda generation: generation.seed, ""),
    "model": (lambda generation: generation.model_name, ""),
    "duration": (lambda generation: generation.duration_seconds, "g"),
    "rating": (lambda generation: generation.rating or None, ""),
    "id": (lambda generation: generation.id, ""),
}
"""Name of a field → its value, None if there is none, and the format of the value unless the template has another."""


class NameTemplate:
    """A template in the syntax of `str.format`, but with FIELDS only: without attributes, indexes and conversions."""

    def __init__(self, template: str, option: str) -> None:
        """Raises CommandError, which names the `option`, if the template can't name every file."""
        self._option = option
        try:
            self._parts = list(Formatter().parse(template))
        except ValueError as error:
            raise self._error(f"{error}; write {{{{ and }}}} for braces") from error
        for literal, field, spec, conversion in self._parts:
            if "/" in literal or "\\" in literal:
                raise self._error("must not contain a / or \\; it names files within one folder")
            if field is None:
                continue
            if field not in FIELDS:
                raise self._error(f"{{{field}}} is not a field; the fields are {', '.join(FIELDS)}")
            if conversion or "{" in (spec or "") or _LONG_NUMBER.search(spec or ""):
                raise self._error(f"{{{field}}} has a conversion, a field or a number above 999 in its format")
        self.format(_EXAMPLE)

    def format(self, generation: Generation) -> str:
        """Returns the text for a generation; it need not be a legal file name. A missing value is an empty text."""
        return "".join(literal + self._format_field(generation, *field) for literal, *field, _ in self._parts)

    def _format_field(self, generation: Generation, name: str | None, spec: str | None) -> str:
        if name is None:
            return ""
        read, default_spec = FIELDS[name]
        value = read(generation)
        if value is None:
            return ""
        try:
            return format(_Text(value) if isinstance(value, str) else value, spec or default_spec)
        except (ValueError, OverflowError) as error:
            kind = "text" if isinstance(value, str) else "a whole number" if isinstance(value, int) else "a number"
            raise self._error(f"{{{name}:{spec}}}: {spec!r} is not a format of {kind}") from error

    def _error(self, problem: str) -> CommandError:
        return CommandError(f"{self._option}: {problem}", BAD_INPUT)


def _build_example() -> Generation:
    """Returns a generation with a value for every field; a format that suits it suits all."""
    example = Generation(
        prompt="piano", model_name="sketch", seed=MAX_SEED, duration_seconds=16.5, rating=MAX_RATING, id="0"
    )
    example.created_at.CopyFrom(Timestamp(seconds=1))
    example.metadata.update({"bpm": 84.5, "key": "A minor", "genre": "jazz"})
    return example


_EXAMPLE = _build_example()
