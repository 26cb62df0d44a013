"""The database schema: which revision a database is at, whether this version can use it, and how it is migrated.

The migrations are Alembic's. Alembic is imported only if a migration has to run: a server whose schema is up to date
starts without it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.orm import Session

from dgx_music.errors import FailedPrecondition
from storage_service.db.database import Database
from storage_service.db.error_translation import locked
from storage_service.db.models import Base

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011")
"""The revisions that this version supports, oldest first."""

_VERSION_TABLE = "alembic_version"
TEXT_INDEX_TABLE = "prompt_search"
"""The table of the text index (migration 0009), which is no model's; other objects' names begin with its name."""

_MIGRATION_LOCK = 0x6467_786D  # "dgxm": the advisory lock of migrations on Postgres
_PREPARATION_LOCK = 0x6467_7870  # "dgxp": that of what is done before them


def upgrade(url: str | URL, revision: str = REVISIONS[-1]) -> None:
    """Upgrades the schema from any earlier revision, or creates it, in one transaction. All data is kept."""
    with Database(url) as database:
        upgrade_database(database, revision)


def downgrade(url: str | URL, revision: str) -> None:
    """Downgrades the schema to an earlier revision, or removes it ("base"), in one transaction.

    Data that the earlier revision can't hold is lost.
    """
    with Database(url) as database, database.connect_for_writing() as connection:
        _lock(connection)
        _run_migrations(connection, "downgrade", revision)


def current(url: str | URL) -> str | None:
    """Returns the database's revision, or None if it has no schema yet."""
    with Database(url) as database:
        return current_revision(database)


def check(url: str | URL) -> None:
    """Raises FailedPrecondition, with the command to run, unless the schema is at the latest revision."""
    with Database(url) as database:
        check_database(database)


def reset(url: str | URL) -> None:
    """Drops all tables of DGX Music with their data and creates them again."""
    with Database(url) as database:
        reset_database(database)


def ensure(database: Database) -> None:
    """Creates the schema in an empty database. Raises FailedPrecondition if an existing schema is older or newer."""
    revision = current_revision(database)
    if revision is None:
        upgrade_database(database)
    else:
        _check_revision(revision)


def upgrade_database(database: Database, revision: str = REVISIONS[-1]) -> None:
    """Does what `upgrade` does, on an open database."""
    if not database.is_sqlite:
        _prepare(database, revision)
    with database.connect_for_writing() as connection:
        _lock(connection)
        if _require_known_revision(connection) != revision:
            _run_migrations(connection, "upgrade", revision)


def check_database(database: Database) -> None:
    """Does what `check` does, on an open database."""
    with database.read() as session:
        check_session(session)


def check_session(session: Session) -> None:
    """Does what `check` does, in a session."""
    _check_revision(_revision_of(session.connection()))


def reset_database(database: Database) -> None:
    """Does what `reset` does, on an open database. Raises FailedPrecondition if a newer version created it: that may
    have tables that this one does not know."""
    with database.connect_for_writing() as connection:
        _lock(connection)
        _require_known_revision(connection)
        Base.metadata.drop_all(connection)
        if database.is_sqlite:
            connection.execute(text(f"DROP VIEW IF EXISTS {TEXT_INDEX_TABLE}_texts"))
        connection.execute(text(f"DROP TABLE IF EXISTS {_VERSION_TABLE}"))
        _run_migrations(connection, "upgrade", REVISIONS[-1])


def current_revision(database: Database) -> str | None:
    """Does what `current` does, on an open database."""
    with database.read() as session:
        return _revision_of(session.connection())


def migrations_folder() -> Path:
    """Returns the migrations' folder: inside the package if installed, else at the top of the repository."""
    package = Path(__file__).parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _revision_of(connection: Connection) -> str | None:
    tables = set(inspect(connection).get_table_names())
    if _VERSION_TABLE in tables:
        statement = text(f"SELECT version_num FROM {_VERSION_TABLE}")  # noqa: S608  # A constant.
        revision: str | None = connection.scalar(statement)
        return revision
    if unknown := tables & set(Base.metadata.tables):
        raise FailedPrecondition(
            f"the database already has tables named {', '.join(sorted(unknown))} that DGX Music did not create; "
            "set DGX_MUSIC_DATABASE_URL to a separate database",
            reason="SCHEMA_UNKNOWN",
        )
    return None


def _require_known_revision(connection: Connection) -> str | None:
    """Returns the revision. Raises FailedPrecondition if it is a newer version's."""
    revision = _revision_of(connection)
    if revision is not None and revision not in REVISIONS:
        _check_revision(revision)
    return revision


def _check_revision(revision: str | None) -> None:
    if revision == REVISIONS[-1]:
        return
    found = {"found": revision or "none", "known": REVISIONS[-1]}
    if revision is None or revision in REVISIONS:
        raise FailedPrecondition(
            f"the database's schema is at revision {found['found']}, older than this version's {REVISIONS[-1]}; "
            "run `dgx-music db migrate`",
            reason="SCHEMA_OLDER",
            metadata=found,
        )
    raise FailedPrecondition(
        f"the database's schema is at revision {revision}, newer than this version supports ({REVISIONS[-1]}); "
        "install the version of DGX Music that created it, or a later one",
        reason="SCHEMA_NEWER",
        metadata=found,
    )


def _lock(connection: Connection) -> None:
    """Blocks other migrations and all writes until the transaction ends. On SQLite, BEGIN IMMEDIATE has done so."""
    if connection.dialect.name != "postgresql":
        return
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    # Writers are locked out before the first step because a deadlock with one could abort the migration. Reads continue
    # until the first step that alters a table.
    if own_tables := sorted(set(inspect(connection).get_table_names()) & set(Base.metadata.tables)):
        connection.execute(text(f"LOCK TABLE {', '.join(own_tables)} IN EXCLUSIVE MODE"))


def _prepare(database: Database, revision: str) -> None:
    """Runs what migrations of an existing Postgres database can do before their transaction, while servers write."""
    current = current_revision(database)
    if current is None or current not in REVISIONS:
        return
    pending = REVISIONS[REVISIONS.index(current) + 1 : REVISIONS.index(revision) + 1]
    if not pending:
        return
    _silence_plugins()
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(migrations_folder()))
    steps = [getattr(scripts.get_revision(one).module, "prepare", None) for one in pending]
    with database.outside_transactions() as connection:
        # Not waited for: a concurrently created index waits for all statements that run, also for one that waits.
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _PREPARATION_LOCK}):
            raise locked()
        try:
            for step in filter(None, steps):
                step(connection)
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _PREPARATION_LOCK})


def _run_migrations(connection: Connection, direction: Literal["upgrade", "downgrade"], revision: str) -> None:
    _silence_plugins()
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    migrate = command.upgrade if direction == "upgrade" else command.downgrade
    migrate(config, revision)


def _silence_plugins() -> None:
    """Keeps from a server's log which plugins Alembic finds when it is imported."""
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
