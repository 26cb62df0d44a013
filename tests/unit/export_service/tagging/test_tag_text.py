"""What is kept of a text, and where it is cut."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_service.tagging.tag_text import clean_text, to_ascii, truncate_text, truncate_utf8

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
KEPT = [
    FAMILY,
    ENGLAND,
    "🇩🇪",
    "👍🏽",
    "❤\ufe0f",
    "e\u0301\u0323",
    "夜",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "क्\u200dष",
    "\U0001fae8",
]


@pytest.mark.parametrize("text", KEPT)
def test_what_belongs_to_a_script_or_an_emoji_is_kept(text):
    assert clean_text(f"a {text} b", 200) == f"a {text} b"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A\0B", "A B"),
        ("A\r\n\tB\x0b\x1bC", "A B C"),
        ("A\x85B\x9fC", "A B C"),
        ("A\u2028B\u2029C", "A B C"),
        ("\u202eabc\u202c\u2066d\u2069", "abcd"),
        ("\ufeffabc", "abc"),
        ("a\ufdd0b\uffffc\U0001fffed", "abcd"),
        ("a\ud83cb", "ab"),
        ("a\ufff9b\ufffac\ufffb", "abc"),
        ("  a \u00a0\u3000 b  ", "a b"),
        ("\u200b\u200d \u2060", ""),
        ("\0\n", ""),
        ("", ""),
    ],
)
def test_what_does_not_belong_to_text_is_removed(text, cleaned):
    assert clean_text(text, 200) == cleaned


@pytest.mark.parametrize("cluster", [FAMILY, ENGLAND, "🇩🇪", "👍🏽", "e\u0301\u0323", "❤\ufe0f\u200d🔥"])
def test_no_cut_splits_a_character(cluster):
    for size in range(1, 4 * len(cluster)):
        cut = truncate_text(cluster * 4, size)
        # The first one may be longer than what is allowed altogether.
        assert len(cut) <= size
        assert size < len(cluster) or cut == cluster * (size // len(cluster))


def test_a_cut_within_endless_marks_keeps_the_limit():
    zalgo = "e" + "\u0301" * 1000
    assert len(truncate_text(zalgo, 200)) == 200


@given(st.text(max_size=300), st.integers(1, 200))
def test_cleaned_text_is_one_line_and_cleaning_it_again_changes_nothing(text, limit):
    cleaned = clean_text(text, limit)
    assert len(cleaned) <= limit
    assert cleaned == cleaned.strip()
    assert not {unicodedata.category(character) for character in cleaned} & {"Cc", "Cs", "Zl", "Zp"}
    assert clean_text(cleaned, limit) == cleaned
    cleaned.encode()


@given(st.text(max_size=100), st.integers(1, 100))
def test_truncated_utf_8_is_a_prefix(text, limit):
    cut = truncate_utf8(text, limit)
    assert len(cut.encode()) <= limit
    assert text.startswith(cut)


@pytest.mark.parametrize(
    ("text", "plain"), [("Café Zoë", "Cafe Zoe"), ("夜 a", "? a"), (FAMILY, "????"), ("½ ﬁ", "1?2 fi"), ("", "")]
)
def test_to_ascii(text, plain):
    assert to_ascii(text) == plain
