"""The schema's version: what a server finds, what it may start on, and how it is brought up to date.

The migrations are Alembic's. Alembic is imported only when one is really to be run: a server that finds its schema up
to date starts without it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.orm import Session

from dgx_music.errors import FailedPrecondition
from storage_service.db.database import Database
from storage_service.db.models import Base

REVISIONS = ("0001", "0002", "0003", "0004", "0005")
"""The revisions that this version knows, oldest first."""

_VERSION_TABLE = "alembic_version"

_MIGRATION_LOCK = 0x6467_786D  # "dgxm": the advisory lock that migrations on Postgres take


def upgrade(url: str | URL, revision: str = REVISIONS[-1]) -> None:
    """Brings the schema up to date, from any earlier revision or from nothing. Data stays; all or nothing."""
    with Database(url) as database:
        upgrade_database(database, revision)


def downgrade(url: str | URL, revision: str) -> None:
    """Takes the schema back to an earlier revision, or all of it away ("base"), and the data with it that the earlier
    one has no place for; all or nothing."""
    with Database(url) as database, database.connect_for_writing() as connection:
        _lock(connection)
        _run_migrations(connection, "downgrade", revision)


def current(url: str | URL) -> str | None:
    """The revision that the database is at; None if it has no schema yet."""
    with Database(url) as database:
        return current_revision(database)


def check(url: str | URL) -> None:
    """Raises FailedPrecondition, saying what to run, unless the schema is the one that this version knows."""
    with Database(url) as database:
        check_database(database)


def reset(url: str | URL) -> None:
    """Removes our tables with all that is in them, and makes them anew."""
    with Database(url) as database:
        reset_database(database)


def ensure(database: Database) -> None:
    """Gives a new, empty database its schema. FailedPrecondition where the schema is older or newer than ours."""
    revision = current_revision(database)
    if revision is None:
        upgrade_database(database)
    else:
        _check_revision(revision)


def upgrade_database(database: Database, revision: str = REVISIONS[-1]) -> None:
    """As `upgrade`, on a database that is open."""
    with database.connect_for_writing() as connection:
        _lock(connection)
        found = _revision_of(connection)
        if found is not None and found not in REVISIONS:
            _check_revision(found)
        if found != revision:
            _run_migrations(connection, "upgrade", revision)


def check_database(database: Database) -> None:
    """As `check`, on a database that is open."""
    with database.read() as session:
        check_session(session)


def check_session(session: Session) -> None:
    """As `check`, in a session."""
    _check_revision(_revision_of(session.connection()))


def reset_database(database: Database) -> None:
    """As `reset`, on a database that is open."""
    with database.connect_for_writing() as connection:
        _lock(connection)
        Base.metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS {_VERSION_TABLE}"))
        _run_migrations(connection, "upgrade", REVISIONS[-1])


def current_revision(database: Database) -> str | None:
    """As `current`, on a database that is open."""
    with database.read() as session:
        return _revision_of(session.connection())


def migrations_folder() -> Path:
    """Where the migrations are: in the package when installed, at the top of the repository when worked on."""
    package = Path(__file__).parents[1]
    packed = package / "migrations"
    return packed if packed.is_dir() else package.parent / "migrations"


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
    """Lets one process at a time change the schema, and nobody a row. On SQLite, BEGIN IMMEDIATE has done so."""
    if connection.dialect.name != "postgresql":
        return
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    # Who writes is out before the first step: of two who each hold what the other waits for, Postgres ends one. Reads
    # go on up to the first step that alters a table.
    if ours := sorted(set(inspect(connection).get_table_names()) & set(Base.metadata.tables)):
        connection.execute(text(f"LOCK TABLE {', '.join(ours)} IN EXCLUSIVE MODE"))


def _run_migrations(connection: Connection, direction: Literal["upgrade", "downgrade"], revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    # What it found to work with is of no use to whoever reads a server's log.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    move = command.upgrade if direction == "upgrade" else command.downgrade
    move(config, revision)
