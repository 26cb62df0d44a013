"""The schema's version: what a server finds, what it may start on, and how it is brought up to date.

The migrations are Alembic's. Alembic is imported only when one is really to be run: a server that finds its schema up
to date starts without it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, inspect, text

from service_runtime.errors import FailedPrecondition
from storage_service.database import Database
from storage_service.models import Base

REVISIONS = ("0001", "0002", "0004")
"""The revisions that this version knows, oldest first."""

_VERSION_TABLE = "alembic_version"

_MIGRATION_LOCK = 0x6467_786D  # "dgxm": the advisory lock that migrations on Postgres take


def upgrade(url: str | URL) -> None:
    """Brings the schema up to date, from any earlier revision or from nothing. Data stays; all or nothing."""
    with _opened(url) as database:
        upgrade_database(database)


def current(url: str | URL) -> str | None:
    """The revision that the database is at; None if it has no schema yet."""
    with _opened(url) as database:
        return current_revision(database)


def check(url: str | URL) -> None:
    """Raises FailedPrecondition, saying what to run, unless the schema is the one that this version knows."""
    with _opened(url) as database:
        _check_revision(current_revision(database))


def reset(url: str | URL) -> None:
    """Removes our tables with all that is in them, and makes them anew."""
    with _opened(url) as database:
        reset_database(database)


def ensure(database: Database) -> None:
    """Gives a new, empty database its schema. FailedPrecondition where the schema is older or newer than ours."""
    revision = current_revision(database)
    if revision is None:
        upgrade_database(database)
    else:
        _check_revision(revision)


def upgrade_database(database: Database) -> None:
    """As `upgrade`, on a database that is open."""
    with database.connect_for_writing() as connection:
        _lock(connection)
        revision = _revision_of(connection)
        if revision is not None and revision not in REVISIONS:
            _check_revision(revision)
        if revision != REVISIONS[-1]:
            _run_migrations(connection)


def reset_database(database: Database) -> None:
    """As `reset`, on a database that is open."""
    with database.connect_for_writing() as connection:
        _lock(connection)
        Base.metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS {_VERSION_TABLE}"))
        _run_migrations(connection)


def current_revision(database: Database) -> str | None:
    """As `current`, on a database that is open."""
    with database.read() as session:
        return _revision_of(session.connection())


def migrations_folder() -> Path:
    """Where the migrations are: in the package when installed, at the top of the repository when worked on."""
    packed = Path(__file__).parent / "migrations"
    return packed if packed.is_dir() else Path(__file__).parent.parent / "migrations"


def _revision_of(connection: Connection) -> str | None:
    tables = set(inspect(connection).get_table_names())
    if _VERSION_TABLE in tables:
        revision: str | None = connection.scalar(text(f"SELECT version_num FROM {_VERSION_TABLE}"))
        return revision
    if strangers := tables & set(Base.metadata.tables):
        raise FailedPrecondition(
            f"the database has tables named {', '.join(sorted(strangers))} that DGX Music did not make; "
            "set DGX_MUSIC_DATABASE_URL to a database of its own",
            reason="SCHEMA_UNKNOWN",
        )
    return None


def _check_revision(revision: str | None) -> None:
    if revision == REVISIONS[-1]:
        return
    found = {"found": revision or "none", "known": REVISIONS[-1]}
    if revision is None or revision in REVISIONS:
        raise FailedPrecondition(
            f"the database's schema is at revision {found['found']}, older than this version's {REVISIONS[-1]}: "
            "run `dgx-music db migrate`",
            reason="SCHEMA_OLDER",
            metadata=found,
        )
    raise FailedPrecondition(
        f"the database's schema is at revision {revision}, newer than this version knows ({REVISIONS[-1]}): "
        "install the version of DGX Music that made it, or a later one",
        reason="SCHEMA_NEWER",
        metadata=found,
    )


def _lock(connection: Connection) -> None:
    """Lets one process at a time change the schema. On SQLite, BEGIN IMMEDIATE has done so."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})


def _run_migrations(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    # What it found to work with is of no use to whoever reads a server's log.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _opened(url: str | URL) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.dispose()
