"""Text of unknown origin, made safe to print: a terminal obeys the control characters in what it is told to show."""

from __future__ import annotations

import unicodedata

JOINERS = frozenset({"\u200c", "\u200d", *map(chr, range(0xE0020, 0xE0080))})
"""Zero-width (non-)joiner and tags, which scripts and emoji need. The other format characters are invisible, or
reorder the text around them."""
REPLACEMENT = "\ufffd"
"""Shown instead of a control character."""

MAX_LINE_CHARACTERS = 2000
"""Of an error that is shown on one line."""


def shorten_text(text: str) -> str:
    """Returns the text without its middle if it is too long to read: what it quotes. Its end says what to do."""
    if len(text) <= MAX_LINE_CHARACTERS:
        return text
    half = MAX_LINE_CHARACTERS // 2
    return f"{text[:half]} … {text[-half:]}"


def make_printable(text: str, *, keep_lines: bool = False) -> str:
    """Returns the text without what a terminal would obey or that hides or reorders other text.

    White space of any kind becomes a space, unless it ends a line and `keep_lines` is true; other control characters
    (C0, C1, DEL) and lone surrogates become U+FFFD; bidirectional overrides and other format characters are removed.
    """
    if text.isascii() and text.isprintable():
        return text
    if keep_lines:
        return "\n".join(map(make_printable, text.split("\n")))
    return "".join(map(_replace, text))


def _replace(character: str) -> str:
    match unicodedata.category(character):
        case "Cc" | "Zl" | "Zp":
            return " " if character.isspace() else REPLACEMENT
        case "Cf":
            return character if character in JOINERS else ""
        case "Cs":
            return REPLACEMENT
    return character
