"""Trigrams of texts, and the queries that are made of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_service.search.trigrams import MAX_TRIGRAMS, fts5_query, prefix_end, select_trigrams, tsquery


def test_text_of_fewer_than_three_characters_has_no_trigrams() -> None:
    assert [select_trigrams(text) for text in ("", "a", "東京")] == [[], [], []]


def test_trigrams_are_distinct_and_in_order() -> None:
    assert select_trigrams("lalala!") == ["lal", "ala", "la!"]


@given(st.text(min_size=3, max_size=200))
@settings(max_examples=150)
def test_long_text_is_looked_up_by_some_trigrams_from_both_ends(text: str) -> None:
    found = select_trigrams(text)
    assert 1 <= len(found) == len(set(found)) <= MAX_TRIGRAMS
    assert all(trigram in text for trigram in found)
    assert found[0] == text[:3]


@given(st.text(min_size=1, max_size=3), st.text(max_size=3))
@settings(max_examples=150)
def test_prefix_ends_where_its_strings_end(prefix: str, more: str) -> None:
    end = prefix_end(prefix)
    if end is not None:
        assert prefix + more < end
        assert not end.startswith(prefix)


@pytest.mark.parametrize(
    ("prefix", "end"), [("ab", "ac"), ("\ud7ff", "\ue000"), ("a\U0010ffff", "b"), ("\U0010ffff", None)]
)
def test_prefix_end_is_next_valid_character(prefix: str, end: str | None) -> None:
    assert prefix_end(prefix) == end


def test_queries_quote_what_has_a_meaning() -> None:
    assert fts5_query(['a"b', "*c ", "OR "]) == '"a""b" AND "*c " AND "OR "'
    assert tsquery("it's\\") == r"'it''' & 't''s' & '''s\\'"
    assert tsquery("'") == "'''':*"
