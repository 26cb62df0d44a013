"""File names that are legal on Linux, macOS and Windows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

from rich.cells import split_graphemes

from service_runtime.printable_text import JOINERS

MANIFEST_EXTENSION = ".c2pa"
"""By C2PA's convention, a manifest has the name of its file with this extension."""
MAX_NAME_BYTES = 255
"""In UTF-8, the limit of Linux and of APFS. The 255 UTF-16 units of Windows are never fewer."""

_FORBIDDEN = frozenset('/\\:*?"<>|')
"""Separators and what Windows reserves."""
_REPLACEMENTS = {"Zs": " ", "Zl": " ", "Zp": " ", "Cc": " ", "Cf": "", "Cs": "_", "Co": "_", "Cn": "_"}
"""Unicode category → what replaces its characters. APFS rejects unassigned characters."""

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_DEVICE = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9\u00b9\u00b2\u00b3]) *(?:\..*)?", re.I | re.S)
"""Names of devices on Windows, which an extension does not change."""

_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
"""Two regional indicators are one flag."""


def file_name(text: str, suffix: str, fallback: str, number: int = 1) -> str:
    """Returns `text` as a file name with the extension `suffix`, and with " (2)" and so on for a `number` above 1.

    Forbidden characters become "_", and a text that is too long is cut between two graphemes. `fallback` is the name if
    nothing remains of the text.
    """
    end = (f" ({number})" if number > 1 else "") + suffix
    if suffix and text[-len(suffix) :].lower() == suffix.lower():
        text = text[: -len(suffix)]
    # Bytes are reserved for the underscore, and for the longer extension of a manifest beside the file.
    reserved = 1 + max(len(MANIFEST_EXTENSION) - len(suffix), 0)
    stem = cut(_clean(text), MAX_NAME_BYTES - reserved - len(end.encode()), _count_bytes).rstrip(" .") or fallback
    return ("_" if _DEVICE.fullmatch(stem) else "") + stem + end


def collision_key(name: str) -> str:
    """Returns a key that two names share if they are one name on macOS or Windows, which ignore case."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def cut(text: str, limit: int, measure: Callable[[str], int] = len) -> str:
    """Returns as many whole graphemes of the text as `measure` in at most `limit`, by default characters."""
    size = end = 0
    for grapheme in _split_graphemes(text):
        size += measure(grapheme)
        if size > limit:
            break
        end += len(grapheme)
    return text[:end]


def _clean(text: str) -> str:
    replaced = "".join(map(_replace, text))
    return unicodedata.normalize("NFC", " ".join(replaced.split())).lstrip(" .-").rstrip(" .")


def _replace(character: str) -> str:
    if character in _FORBIDDEN:
        return "_"
    if character in JOINERS:
        return character
    return _REPLACEMENTS.get(unicodedata.category(character), character)


def _split_graphemes(text: str) -> Iterator[str]:
    """Yields the graphemes as Rich finds them, except that the two halves of a flag stay together."""
    half_flag = ""
    for start, end, _ in split_graphemes(text)[0]:
        grapheme = half_flag + text[start:end]
        if not half_flag and ord(text[start]) in _FLAG_LETTERS and end < len(text) and ord(text[end]) in _FLAG_LETTERS:
            half_flag = grapheme
            continue
        half_flag = ""
        yield grapheme


def _count_bytes(text: str) -> int:
    return len(text.encode())
