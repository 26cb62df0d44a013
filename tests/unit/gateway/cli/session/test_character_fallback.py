"""Characters that the encoding of the terminal lacks."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from rich.cells import cell_len

from gateway.cli.session import character_fallback
from gateway.cli.session.character_fallback import ERROR_HANDLER, register_fallback, terminal_encoding


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_fallback()


@pytest.mark.parametrize(
    ("text", "encoding", "printed"),
    [
        ("32 kHz × 2 … → –", "ascii", "32 kHz x 2 ~ > -"),
        ("█░ ━╸", "ascii", "#. =="),
        ("⠀⠉⣀⣿", "ascii", " '.|"),
        ("日本 🎵", "ascii", "???? ??"),
        ("café ½", "ascii", "cafe 1"),
        ("café × … 日", "latin-1", "café × ~ ??"),
        ("e\u0301", "ascii", "e"),
        ("\ufffd", "ascii", "?"),
    ],
)
def test_replacement_is_similar_and_as_wide(text: str, encoding: str, printed: str) -> None:
    assert text.encode(encoding, ERROR_HANDLER).decode(encoding) == printed
    assert len(printed) == cell_len(text)


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", ERROR_HANDLER)


@pytest.mark.parametrize(
    ("variables", "is_terminal", "utf8_mode", "encoding"),
    [
        ({"LANG": "C"}, True, 1, "ascii"),
        ({"LC_ALL": "POSIX", "LANG": "de_DE.UTF-8"}, True, 1, "ascii"),
        ({"LANG": "C"}, False, 1, "utf-8"),
        ({}, True, 1, "utf-8"),
        ({"LANG": "C", "PYTHONUTF8": "1"}, True, 1, "utf-8"),
        ({"LANG": "C", "PYTHONIOENCODING": "utf-8"}, True, 1, "utf-8"),
        ({"LANG": "C.UTF-8"}, True, 0, "utf-8"),
    ],
)
def test_a_terminal_of_the_c_locale_gets_ascii(
    variables: dict[str, str], is_terminal: bool, utf8_mode: int, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream(io.TextIOWrapper):
        def isatty(self) -> bool:
            return is_terminal

    for name in ("LC_ALL", "LANG", "PYTHONUTF8", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    flags = SimpleNamespace(flags=SimpleNamespace(utf8_mode=utf8_mode))
    monkeypatch.setattr(character_fallback, "sys", flags)
    assert terminal_encoding(Stream(io.BytesIO(), "utf-8")) == encoding
    assert terminal_encoding(None) == "utf-8"
    assert sys.flags is not flags
