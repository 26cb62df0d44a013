"""Database URLs as they are parsed and as they are shown."""

from __future__ import annotations

import pytest

from dgx_music.errors import FailedPrecondition
from storage_service.database_url import mask_url, parse_url


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_parse_url_sets_postgres_driver(scheme: str) -> None:
    assert parse_url(f"{scheme}://u:secret@h/d").drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "secret", "", "postgresql+asyncpg://u:secret@h/d", "postgresql://u:secret@h:x/d"]
)
def test_parse_url_rejects_other_urls_without_leaking_password(url: str) -> None:
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_DATABASE_URL") as raised:
        parse_url(url)
    assert "secret" not in raised.value.message


def test_password_in_query_becomes_that_of_the_user() -> None:
    parsed = parse_url("postgresql://u@h/d?password=secret&application_name=x")
    assert (parsed.password, dict(parsed.query)) == ("secret", {"application_name": "x"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?password=secret&sslpassword=secret&user=u", "postgresql://h/d?user=u"),
        ("://u:secret@h", "***"),
        ("secret", "***"),
    ],
)
def test_mask_url_shows_no_password(url: str, shown: str) -> None:
    assert mask_url(url) == shown
