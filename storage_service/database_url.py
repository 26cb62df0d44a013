"""The URL of the database, as it is used and as it is shown: a password in it is nobody else's business."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from dgx_music.errors import FailedPrecondition

MASK = "***"
SECRET_PARAMETERS = ("password", "sslpassword")
"""Parameters in the query of a URL that libpq takes, and that are secret."""


_SEVERAL_HOSTS = re.compile(r"(?P<before>[^/?]+://(?:[^/?]*@)?)(?P<hosts>[^/?@]*,[^/?@]*)(?P<after>[/?].*|)")
"""A URL with several hosts, as libpq takes it: postgresql://USER@HOST:PORT,HOST:PORT/DATABASE."""

_KEEPALIVE_OPTIONS = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""In seconds, the last one in milliseconds. Without them, a machine that has vanished would be waited for for hours."""


def parse_url(url: str | URL) -> URL:
    """Parses a database URL and sets the driver. A password in the query becomes that of the user, and several hosts
    become the lists `host` and `port` in the query.

    Raises FailedPrecondition if the URL is not valid.
    """
    try:
        parsed = _make_url(url)
    except (ArgumentError, ValueError):  # The port is no number.
        parsed = None
    if parsed is not None and parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        if isinstance(password := parsed.query.get("password"), str):
            parsed = parsed.set(password=password).difference_update_query(["password"])
        return parsed.set(drivername="postgresql+psycopg")
    if parsed is not None and parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return parsed.set(drivername="sqlite")
    # The URL itself is not part of the message because it may contain a password.
    raise FailedPrecondition(
        "the database URL (DGX_MUSIC_DATABASE_URL) must be sqlite:///PATH, postgresql://USER@HOST/DATABASE or "
        "postgresql://USER@HOST:PORT,HOST:PORT/DATABASE",
        reason="DATABASE_URL_INVALID",
        metadata={"field": "database_url"},
    )


def mask_url(url: str | URL) -> str:
    """Returns the URL to be shown, without its passwords; only a mask if it can't be read."""
    try:
        parsed = _make_url(url)
    except (ArgumentError, ValueError):
        return MASK
    return parsed.difference_update_query(SECRET_PARAMETERS).render_as_string(hide_password=True)


def connection_options(url: URL, timeout_seconds: float) -> dict[str, Any]:
    """Returns libpq's options for a connection, without those that the URL sets itself.

    Of several hosts, that one is connected to which allows writing: after a fail-over, the new primary.
    """
    hosts = url.query.get("host", "")
    count = len(hosts.split(",")) if isinstance(hosts, str) else len(hosts)
    options: dict[str, Any] = {**_KEEPALIVE_OPTIONS, "connect_timeout": max(2, round(timeout_seconds / count))}
    if count > 1:
        options["target_session_attrs"] = "read-write"
    return {name: value for name, value in options.items() if name not in url.query}


def _make_url(url: str | URL) -> URL:
    several = _SEVERAL_HOSTS.fullmatch(url) if isinstance(url, str) else None
    if several is None:
        return make_url(url)
    split = [_HOST_AND_PORT.fullmatch(one) for one in several["hosts"].split(",")]
    hosts = [found for found in split if found is not None]
    if len(hosts) < len(split):
        raise ValueError
    lists = {"host": ",".join(one["ipv6"] or one["host"] for one in hosts)}
    if any(one["port"] for one in hosts):
        lists["port"] = ",".join(one["port"] or str(_DEFAULT_PORT) for one in hosts)
    return make_url(several["before"] + several["after"]).update_query_dict(lists)


_HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[^\[\]:]+))(?::(?P<port>[0-9]+))?")
_DEFAULT_PORT = 5432
