"""Ages and sizes as users type and read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.cli.display.units import format_size, parse_age, parse_duration, parse_size, parse_time
from gateway.cli.session.command_errors import CommandError

DAY = timedelta(days=1)


def test_ages_and_sizes_are_parsed_or_rejected() -> None:
    assert parse_age("2w", "--older-than").days == 14
    assert parse_size("1.5GB", "--keep") == 1_500_000_000
    for text in ("", "30", "d", "-1d", "1y", "999999d"):
        with pytest.raises(CommandError, match="--older-than"):
            parse_age(text, "--older-than")
    for text in ("", "5", "GB", "-1GB", "1,5GB", "1KB"):
        with pytest.raises(CommandError, match="--keep"):
            parse_size(text, "--keep")
    assert parse_duration("7d", "--expires", timedelta(days=7)) == 7 * 24 * parse_duration("60m", "--expires", DAY)
    for text in ("", "0h", "8d", "99999w", "1y"):
        with pytest.raises(CommandError, match=r"--expires: .* at most 7d"):
            parse_duration(text, "--expires", timedelta(days=7))


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 kB"), (40_266, "40 kB"), (99_999, "100 kB"), (100_000, "0.1 MB"), (3_145_728, "3.1 MB"), (10**9, "1.0 GB")],
)
def test_size_is_readable_in_every_magnitude(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


def test_time_is_an_age_a_day_or_a_moment() -> None:
    now = datetime.now().astimezone()
    assert abs(now - timedelta(hours=2) - parse_time("2h", "--since")) < timedelta(minutes=1)
    assert parse_time("2026-11-29", "--since") == datetime(2026, 11, 29).astimezone()
    assert parse_time("2026-11-29", "--until", is_end=True) == datetime(2026, 11, 30).astimezone()
    assert parse_time("2026-11-29T18:30", "--until", is_end=True) == datetime(2026, 11, 29, 18, 30).astimezone()
    assert parse_time("2026-11-29T18:30Z", "--until") == datetime(2026, 11, 29, 18, 30, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "2m", "now", "2026-02-30", "9999-12-31T23:59:59-23:59"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match=f"--since: '{text}' is not a valid time; use for example 2h"):
        parse_time(text, "--since", is_end=True)
