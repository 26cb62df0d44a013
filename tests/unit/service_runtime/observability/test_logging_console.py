"""Logs for people, on a terminal that would obey control characters."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from service_runtime.observability.logging import configure_logging, get_logger


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    written = io.StringIO()
    configure_logging("info", "console", written)
    yield written
    configure_logging("info", "json")


def test_values_and_tracebacks_have_no_control_characters(stream: io.StringIO) -> None:
    log = get_logger("test")
    log.info("received", prompt="a\x1b[2J\x9b2J\u202eb", sizes=["\x1b"])
    try:
        raise ValueError("c\x1b]0;title\x07")
    except ValueError:
        log.exception("failed")
    printed = stream.getvalue()
    assert "a\ufffd[2J\ufffd2Jb" in printed
    assert "ValueError: c\ufffd]0;title\ufffd\n" in printed
    assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(printed)
