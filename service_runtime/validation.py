"""Checks of request fields that several services share; each service applies them at its own trust boundary.

Each check raises InvalidArgument, which names the field by its path in the request and says which values are valid.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from dgx_music.errors import InvalidArgument
from dgx_music.limits import (
    MAX_CONTINUATION_SECONDS,
    MAX_NAME_CHARACTERS,
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    MAX_TEMPERATURE,
    MIN_CONTINUATION_SECONDS,
    SAMPLING_RANGES,
)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""A control character (Unicode category Cc) other than tab and line feed."""


def is_uuid(value: str) -> bool:
    """Returns whether `value` is a UUID, in upper or lower case."""
    return _UUID.fullmatch(value) is not None


def check_uuid(field: str, value: str) -> str:
    """Returns the UUID in lower case, the only form that may enter a database row or a path."""
    if not is_uuid(value):
        raise InvalidArgument(field, f"must be a UUID such as 1b4e28ba-2fa1-41d2-883f-0016d3cca427, not {value[:60]!r}")
    return value.lower()


def check_text(field: str, text: str, max_characters: int) -> None:
    """Accepts at most `max_characters`, without control characters other than tab and line feed; may be empty."""
    if len(text) > max_characters:
        raise InvalidArgument(field, f"must have at most {max_characters} characters, not {len(text)}")
    if match := _CONTROL_CHARACTER.search(text):
        raise InvalidArgument(
            field,
            "must not contain control characters other than tab and line feed; "
            f"found U+{ord(match[0]):04X} at position {match.start()}",
        )


def is_name(text: str) -> bool:
    """Whether the text can name a model or an adapter. The name of a file can't if it is not valid UTF-8, say."""
    try:
        text.encode()
        check_text("name", text, MAX_NAME_CHARACTERS)
    except (UnicodeEncodeError, InvalidArgument):
        return False
    return bool(text.strip())


def check_range(field: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Accepts a number from `low` to `high`, both inclusive. Also rejects NaN."""
    if not low <= value <= high:
        suffix = f" {unit}" if unit else ""
        raise InvalidArgument(field, f"must be {_format_number(low)} to {_format_number(high)}{suffix}, not {value}")


def check_finite(field: str, value: float) -> None:
    """Accepts a finite number that is at least 0."""
    if not (math.isfinite(value) and value >= 0):
        raise InvalidArgument(field, f"must be finite and at least 0, not {value}")


def check_prompt(field: str, text: str) -> None:
    """Accepts 1 to 10000 characters, not all blank, without control characters other than tab and line feed."""
    if not text.strip():
        raise InvalidArgument(field, "must not be empty; describe the music in words")
    check_text(field, text, MAX_PROMPT_CHARACTERS)


def check_seed(field: str, seed: int) -> None:
    """Accepts 0 to 2^63-1."""
    if not 0 <= seed <= MAX_SEED:
        raise InvalidArgument(field, f"must be 0 to 2^63-1, not {seed}")


def check_sampling(field: str, sampling: Mapping[str, float]) -> None:
    """Accepts temperature above 0 and up to 10, top_k 0 to 2048, top_p 0 to 1, guidance_scale 0 to 20; rejects NaN."""
    for name, value in sampling.items():
        path = f"{field}.{name}"
        if name in SAMPLING_RANGES:
            check_range(path, value, *SAMPLING_RANGES[name])
        elif not 0 < value <= MAX_TEMPERATURE:
            raise InvalidArgument(path, f"must be above 0 and at most {MAX_TEMPERATURE:g}, not {value:g}")


def check_continuation(field: str, source_id: str, seconds: float) -> str:
    """Returns the source's UUID in lower case. `seconds` must be 0.5 to 25, or 0 for the default."""
    if seconds:
        check_range(f"{field}.seconds", seconds, MIN_CONTINUATION_SECONDS, MAX_CONTINUATION_SECONDS, "s")
    return check_uuid(f"{field}.source_id", source_id)


def _format_number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
