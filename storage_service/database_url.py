"""The URL of the database, as it is used and as it is shown: a password in it is nobody else's business."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from dgx_music.errors import FailedPrecondition

MASK = "***"
SECRET_PARAMETERS = ("password", "sslpassword")
"""Parameters in the query of a URL that libpq takes, and that are secret."""


def parse_url(url: str | URL) -> URL:
    """Parses a database URL and sets the driver. A password in the query becomes that of the user.

    Raises FailedPrecondition if the URL is not valid.
    """
    try:
        parsed = make_url(url)
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
        "the database URL (DGX_MUSIC_DATABASE_URL) must be sqlite:///PATH or postgresql://USER@HOST/DATABASE",
        reason="DATABASE_URL_INVALID",
        metadata={"field": "database_url"},
    )


def mask_url(url: str | URL) -> str:
    """Returns the URL to be shown, without its passwords; only a mask if it can't be read."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return MASK
    return parsed.difference_update_query(SECRET_PARAMETERS).render_as_string(hide_password=True)
