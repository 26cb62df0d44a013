"""The trigrams by which a text is looked up, and the queries for them of SQLite's FTS5 and of Postgres."""

from __future__ import annotations

from collections.abc import Sequence

LENGTH = 3

MAX_TRIGRAMS = 12
"""How many of a long text's trigrams are looked up: what they find is compared with the text anyway."""

_LAST_BEFORE_SURROGATES, _FIRST_AFTER_SURROGATES, _LAST_CHARACTER = 0xD7FF, 0xE000, 0x10FFFF


def select_trigrams(text: str) -> list[str]:
    """Returns distinct trigrams of the text, evenly spread if there are many; none if it has less than 3 characters."""
    found = list(dict.fromkeys(text[start : start + LENGTH] for start in range(len(text) - LENGTH + 1)))
    if len(found) <= MAX_TRIGRAMS:
        return found
    return [found[place * (len(found) - 1) // (MAX_TRIGRAMS - 1)] for place in range(MAX_TRIGRAMS)]


def prefix_end(prefix: str) -> str | None:
    """Returns the first string that is greater than all that begin with the prefix, or None if there is none."""
    while prefix:
        prefix, last = prefix[:-1], ord(prefix[-1])
        if last == _LAST_BEFORE_SURROGATES:
            return prefix + chr(_FIRST_AFTER_SURROGATES)
        if last < _LAST_CHARACTER:
            return prefix + chr(last + 1)
    return None


def fts5_query(trigrams: Sequence[str]) -> str:
    """Returns the FTS5 query for what has all the trigrams."""
    return " AND ".join('"{}"'.format(trigram.replace('"', '""')) for trigram in trigrams)


def tsquery(text: str) -> str:
    """Returns the Postgres query for what may contain the text: its trigrams, or those that begin with a short text."""
    if len(text) < LENGTH:
        return f"{_quote_lexeme(text)}:*"
    return " & ".join(_quote_lexeme(trigram) for trigram in select_trigrams(text))


def _quote_lexeme(text: str) -> str:
    return "'{}'".format(text.replace("\\", "\\\\").replace("'", "''"))
