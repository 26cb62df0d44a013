"""Text as tags can hold it: one line, without characters that are invisible or change how the text around them reads.

What belongs to a script or an emoji is kept: joiners, variation selectors, combining marks. Text is not normalized
(UAX #15), so that a reader gets the characters that were sent.
"""

from __future__ import annotations

import unicodedata

ZERO_WIDTH_JOINER = "\u200d"
NON_CHARACTERS_IN_PLANE = 0xFFFE
"""The last two code points of every plane are not characters."""
MAX_CLUSTER_CHARACTERS = 32
"""The longest sequence that is kept together; a family emoji with skin tones has 11."""


def _ranges(*bounds: tuple[int, int]) -> frozenset[str]:
    return frozenset(chr(code) for first, last in bounds for code in range(first, last + 1))


REMOVED = _ranges(
    (0x202A, 0x202E),  # Embeddings and overrides of direction,
    (0x2066, 0x206F),  # isolates, and deprecated controls.
    (0xFEFF, 0xFEFF),  # The byte order mark.
    (0xFFF9, 0xFFFB),  # Interlinear annotation.
    (0xFDD0, 0xFDEF),  # Not characters.
    (0xD800, 0xDFFF),  # Surrogates, which a string contains only by mistake.
    (0xE0001, 0xE0001),  # The deprecated language tag.
)
EXTENDERS = _ranges((0x200C, 0x200D), (0x1F3FB, 0x1F3FF), (0xE0020, 0xE007F))
"""Joiners, skin tones and the tags of regional flags: what extends the character before it, besides all marks."""
INVISIBLE = ("Cf", "Zs")
"""Categories of format characters and spaces."""
REGIONAL_INDICATORS = _ranges((0x1F1E6, 0x1F1FF))
"""Two of them are a flag."""


def clean_text(text: str, max_characters: int) -> str:
    """Returns the text as one line of at most `max_characters`, cut between two characters as a reader sees them.
    Empty if nothing of it is visible.
    """
    kept = "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)
    kept = " ".join("".join(character for character in kept if _is_text(character)).split())
    if all(unicodedata.category(character) in INVISIBLE for character in kept):
        return ""
    return truncate_text(kept, max_characters)


def truncate_text(text: str, max_characters: int) -> str:
    """Returns the start of the text, at most `max_characters`, cut between two characters as a reader sees them."""
    end = min(len(text), max_characters)
    for shorter in range(end, max(end - MAX_CLUSTER_CHARACTERS, 0), -1):
        if not _is_within_cluster(text, shorter):
            end = shorter
            break
    return text[:end].rstrip()


def truncate_utf8(text: str, max_bytes: int) -> str:
    """Returns the start of the text, at most `max_bytes` in UTF-8, cut between two characters as a reader sees them."""
    encoded = text.encode()
    if len(encoded) <= max_bytes:
        return text
    return truncate_text(text, len(encoded[:max_bytes].decode(errors="ignore")))


def to_ascii(text: str) -> str:
    """Returns the text without accents, and with "?" for every other character that is not in ASCII."""
    plain = unicodedata.normalize("NFKD", text)
    return (
        "".join(character for character in plain if not unicodedata.combining(character) and character not in EXTENDERS)
        .encode("ascii", "replace")
        .decode()
    )


def _is_text(character: str) -> bool:
    return character not in REMOVED and ord(character) & 0xFFFF < NON_CHARACTERS_IN_PLANE


def _is_within_cluster(text: str, position: int) -> bool:
    """Returns whether a cut at the position would split what a reader sees as one character: the rules of UAX #29 that
    matter outside of decomposed Hangul.
    """
    if not 0 < position < len(text):
        return False
    after = text[position]
    if after in REGIONAL_INDICATORS:
        before = text[:position]
        flags = len(before) - len(before.rstrip("".join(REGIONAL_INDICATORS)))
        return flags % 2 == 1
    return after in EXTENDERS or unicodedata.category(after)[0] == "M" or text[position - 1] == ZERO_WIDTH_JOINER
