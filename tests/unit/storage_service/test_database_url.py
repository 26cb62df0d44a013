"""Database URLs as they are parsed and as they are shown."""

from __future__ import annotations

import pytest

from dgx_music.errors import FailedPrecondition
from storage_service.database_url import connection_options, mask_url, parse_url


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


@pytest.mark.parametrize(
    ("url", "hosts", "ports", "database"),
    [
        ("postgresql://me:secret@a:1,b:2/music?sslmode=require", "a,b", "1,2", "music"),
        ("postgresql://me@a,b:2/music", "a,b", "5432,2", "music"),
        ("postgres://a,[::1]:3", "a,::1", "5432,3", None),
        ("postgresql://a,b/music", "a,b", None, "music"),
    ],
)
def test_several_hosts(url: str, hosts: str, ports: str | None, database: str | None) -> None:
    parsed = parse_url(url)
    assert (parsed.query["host"], parsed.query.get("port"), parsed.database) == (hosts, ports, database)
    assert parsed.query.get("sslmode") == ("require" if "sslmode" in url else None)
    assert "secret" not in mask_url(url)
    options = connection_options(parsed, 5.0)
    assert (options["target_session_attrs"], options["connect_timeout"]) == ("read-write", 2)


@pytest.mark.parametrize("hosts", ["a:x,b", "a,", ",", "[::1,b"])
def test_several_hosts_that_are_not_valid(hosts: str) -> None:
    with pytest.raises(FailedPrecondition, match="HOST:PORT,HOST:PORT"):
        parse_url(f"postgresql://{hosts}/music")


def test_options_of_a_connection_give_way_to_those_of_the_url() -> None:
    one = connection_options(parse_url("postgresql://me@a/music"), 5.0)
    assert "target_session_attrs" not in one
    assert one["connect_timeout"] == 5
    url = "postgresql://me@a,b/music?target_session_attrs=any&tcp_user_timeout=7"
    assert connection_options(parse_url(url), 5.0).keys().isdisjoint({"target_session_attrs", "tcp_user_timeout"})
