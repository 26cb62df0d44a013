"""What `dgx-music token` understands and prints, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dgx_music.access.v1.access_pb2 import SCOPE_GENERATE, Token, TokenLimits
from gateway.cli.commands.access import tokens
from gateway.cli.session.command_errors import CommandError

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(("text", "delta"), [("12h", 0.5), ("30d", 30), ("2w", 14)])
def test_expiry_is_a_time_from_now(text: str, delta: float) -> None:
    assert tokens.parse_expiry(text, NOW) == NOW + timedelta(days=delta)


def test_expiry_is_the_end_of_a_day() -> None:
    local = tokens.parse_expiry("2027-01-31", NOW).astimezone()
    assert (local.date().isoformat(), local.time().isoformat()) == ("2027-02-01", "00:00:00")


@pytest.mark.parametrize("text", ["", "tomorrow", "2027-02-30", "2020-01-01", "0d", "2027-13-01", "3m"])
def test_expiry_that_is_none_is_rejected(text: str) -> None:
    with pytest.raises(CommandError, match="--expires") as raised:
        tokens.parse_expiry(text, NOW)
    assert raised.value.exit_status == 2


def test_validity_and_limits_in_words() -> None:
    token = Token(id="abcdefgh", scope=SCOPE_GENERATE)
    assert tokens.format_validity(token, NOW) == "valid"
    assert tokens.format_scope(token) == "generate"
    token.expires_at.FromDatetime(NOW + timedelta(seconds=1))
    assert tokens.format_validity(token, NOW).startswith("expires 2026-11-29")
    assert tokens.is_valid(token, NOW)
    token.expires_at.FromDatetime(NOW)
    assert tokens.format_validity(token, NOW) == "expired"
    token.revoked_at.FromDatetime(NOW)
    assert tokens.format_validity(token, NOW) == "revoked"
    assert not tokens.is_valid(token, NOW)
    limits = TokenLimits(calls_per_minute=60, max_queued=5, minutes_per_day=1.5)
    assert tokens.format_limits(limits) == "60 calls/min, 5 queued, 1.5 min/day"
    assert tokens.format_limits(TokenLimits()) == ""
    assert tokens.format_limits(TokenLimits(max_queued=5), 2.5) == "weight 2.5, 5 queued"
