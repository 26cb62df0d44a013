"""Copies made of new bytes and spans of another file."""

from __future__ import annotations

import io

import pytest

from export_service.retagging.splicing import Layout, Patch, Span


def test_copy_has_pieces_in_order_and_patches():
    copy = io.BytesIO()
    Layout([b"new ", Span(2, 5), b"", Span(0, 1)], (Patch(0, b"N"),)).write(io.BytesIO(b"abcdef"), copy)
    assert copy.getvalue() == b"New cdea"


def test_source_that_ends_too_early_is_an_error():
    with pytest.raises(EOFError, match="ends 2 bytes before byte 8"):
        Layout([Span(2, 8)]).write(io.BytesIO(b"abcdef"), io.BytesIO())
