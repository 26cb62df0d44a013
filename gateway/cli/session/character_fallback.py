"""What is printed instead of a character that the encoding of the terminal does not have."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from typing import TextIO

ERROR_HANDLER = "dgx-music-fallback"
"""Name of the error handler, for `errors=` of a text stream."""

_BRAILLE = range(0x2800, 0x2900)
_UPPER_DOTS, _LOWER_DOTS = 0x01 | 0x02 | 0x08 | 0x10, 0x04 | 0x20 | 0x40 | 0x80
_SIMILAR = {
    "…": "~",
    "→": ">",
    "×": "x",
    "–": "-",
    "—": "-",
    "•": "*",
    "·": ".",
    "█": "#",
    "░": ".",
    "━": "=",
    "╸": "=",
    "╺": "-",
    "°": " ",
    "“": '"',
    "”": '"',
    "„": '"',
    "\u2018": "'",
    "\u2019": "'",
    "\u00a0": " ",
}
"""Character → one of ASCII of the same width, so that tables stay aligned."""


def register_fallback() -> None:
    """Registers the error handler under its name."""
    codecs.register_error(ERROR_HANDLER, _replace)


def terminal_encoding(stream: TextIO | None) -> str:
    """Returns the encoding to print with: that of the stream, but ASCII on a terminal whose locale is explicitly C.

    Python itself takes the C locale for one that nobody has set, and then uses UTF-8.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    is_chosen = os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8")
    locale = os.environ.get("LC_ALL") or os.environ.get("LANG")
    if stream is not None and stream.isatty() and sys.flags.utf8_mode and not is_chosen and locale in ("C", "POSIX"):
        return "ascii"
    return encoding


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_similar, error.object[error.start : error.end])), error.end


def _similar(character: str) -> str:
    """Returns the character in ASCII, as wide as it is on a terminal that can show it."""
    if ord(character) in _BRAILLE:
        dots = ord(character) - _BRAILLE.start
        return " '.|"[bool(dots & _UPPER_DOTS) + 2 * bool(dots & _LOWER_DOTS)]
    if character in _SIMILAR:
        return _SIMILAR[character]
    from rich.cells import cell_len  # Only this needs it, and --help should respond at once.

    base = unicodedata.normalize("NFKD", character)[:1]
    width = cell_len(character)
    return base if base.isascii() and base.isprintable() and width == 1 else "?" * width
