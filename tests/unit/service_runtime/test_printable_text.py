"""What a terminal is given of a text of unknown origin."""

from __future__ import annotations

import unicodedata

import pytest

from service_runtime.printable_text import MAX_LINE_CHARACTERS, make_printable, shorten_text


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("house at 124 BPM", "house at 124 BPM"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("\x9b2J\x90q\x9c", "\ufffd2J\ufffdq\ufffd"),
        ("a\tb\r\nc\x85d\u2028e", "a b  c d e"),
        ("bell\a back\b\b\x7f\x00", "bell\ufffd back\ufffd\ufffd\ufffd\ufffd"),
        ("gnp.\u202ewav\u202c \u2066x\u2069\u200e\u200f\u061c", "gnp.wav x"),
        ("zero\u200bwidth\ufeff \u00adsoft", "zerowidth soft"),
        ("lone \ud800", "lone \ufffd"),
        ("日本 \U0001f468\u200d\U0001f469 e\u0301 \u00a0", "日本 \U0001f468\u200d\U0001f469 e\u0301 \u00a0"),
    ],
)
def test_controls_are_replaced_and_writing_is_kept(text: str, printed: str) -> None:
    assert make_printable(text) == printed
    assert make_printable(printed) == printed


def test_lines_are_kept_on_request() -> None:
    assert make_printable("a\nb\x1b\r\n", keep_lines=True) == "a\nb\ufffd \n"


def test_no_control_character_of_unicode_remains() -> None:
    everything = "".join(
        map(chr, (*range(0x3100), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0080)))
    )
    kept = set(map(unicodedata.category, make_printable(everything).replace("\u200c", "").replace("\u200d", "")))
    assert not kept & {"Cc", "Cs", "Zl", "Zp"}


def test_long_text_loses_its_middle() -> None:
    assert shorten_text("short") == "short"
    shortened = shorten_text(f"error: {'x' * 100_000}; try another")
    assert len(shortened) <= MAX_LINE_CHARACTERS + 3
    assert shortened.startswith("error: xxx")
    assert shortened.endswith("xxx; try another")
