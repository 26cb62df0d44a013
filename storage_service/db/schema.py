"""The database schema: which revision a database is at, whether this version can use it, and how it is migrated.

Each migration says which earlier revision's servers work on its schema as well (`min_compatible`), and the database
keeps that beside its revision: servers of two versions then share one database during an upgrade, or after a return to
the earlier version. See docs/decisions/0025-many-storage-servers.md.

The migrations are Alembic's. Alembic is imported only if a migration has to run: a server whose schema is up to date
starts without it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.orm import Session

from dgx_music.errors import FailedPrecondition
from storage_service.db.database import Database
from storage_service.db.models import Base

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011")
"""The revisions that this version supports, oldest first."""

_VERSION_TABLE = "alembic_version"

MIN_COMPATIBLE_COLUMN = "min_compatible"
"""The column beside Alembic's revision. Alembic leaves it alone; `migrations/env.py` writes it."""

_MIGRATION_LOCK = 0x6467_786D  # "dgxm": the advisory lock of migrations on Postgres


class SchemaVersion(NamedTuple):
    """Which schema a database has."""

    revision: str
    min_compatible: str
    """The earliest revision whose servers can use it."""

    @property
    def is_newer_and_compatible(self) -> bool:
        """Whether a newer version created it, but so that this one can use it."""
        return self.revision not in REVISIONS and self.min_compatible in REVISIONS


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
        _require_known_revision(connection)
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
    """Creates the schema in an empty database. Raises FailedPrecondition if this version can't use an existing one."""
    with database.read() as session:
        version = _version_of(session.connection())
    if version is None:
        upgrade_database(database)
    else:
        _check_version(version)


def upgrade_database(database: Database, revision: str = REVISIONS[-1]) -> None:
    """Does what `upgrade` does, on an open database. A schema that is newer but compatible stays as it is."""
    with database.connect_for_writing() as connection:
        _lock(connection)
        version = _version_of(connection)
        if version is not None and version.is_newer_and_compatible:
            return
        if _require_known_revision(connection) != revision:
            _run_migrations(connection, "upgrade", revision)


def check_database(database: Database) -> None:
    """Does what `check` does, on an open database."""
    with database.read() as session:
        check_session(session)


def check_session(session: Session) -> None:
    """Does what `check` does, in a session."""
    _check_version(_version_of(session.connection()))


def reset_database(database: Database) -> None:
    """Does what `reset` does, on an open database. Raises FailedPrecondition if a newer version created it: that may
    have tables that this one does not know."""
    with database.connect_for_writing() as connection:
        _lock(connection)
        _require_known_revision(connection)
        Base.metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS {_VERSION_TABLE}"))
        _run_migrations(connection, "upgrade", REVISIONS[-1])


def current_revision(database: Database) -> str | None:
    """Does what `current` does, on an open database."""
    with database.read() as session:
        version = _version_of(session.connection())
    return None if version is None else version.revision


def migrations_folder() -> Path:
    """Returns the migrations' folder: inside the package if installed, else at the top of the repository."""
    package = Path(__file__).parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _version_of(connection: Connection) -> SchemaVersion | None:
    tables = set(inspect(connection).get_table_names())
    if _VERSION_TABLE in tables:
        # All columns, because databases of before it have no `min_compatible`.
        found = connection.execute(text(f"SELECT * FROM {_VERSION_TABLE}")).mappings().one_or_none()  # noqa: S608
        if found is None:
            return None
        revision = found["version_num"]
        return SchemaVersion(revision, found.get(MIN_COMPATIBLE_COLUMN) or revision)
    if unknown := tables & set(Base.metadata.tables):
        raise FailedPrecondition(
            f"the database already has tables named {', '.join(sorted(unknown))} that DGX Music did not create; "
            "set DGX_MUSIC_DATABASE_URL to a separate database",
            reason="SCHEMA_UNKNOWN",
        )
    return None


def _require_known_revision(connection: Connection) -> str | None:
    """Returns the revision. Raises FailedPrecondition if it is a newer version's, even if that is compatible."""
    version = _version_of(connection)
    if version is not None and version.revision not in REVISIONS:
        raise _newer(version)
    return None if version is None else version.revision


def _check_version(version: SchemaVersion | None) -> None:
    """Raises FailedPrecondition unless this version can use the schema."""
    if version is None or (version.revision in REVISIONS and version.revision != REVISIONS[-1]):
        found = version.revision if version else "none"
        raise FailedPrecondition(
            f"the database's schema is at revision {found}, older than this version's {REVISIONS[-1]}; "
            "run `dgx-music db migrate`",
            reason="SCHEMA_OLDER",
            metadata={"found": found, "known": REVISIONS[-1]},
        )
    if version.revision not in REVISIONS and not version.is_newer_and_compatible:
        raise _newer(version)


def _newer(version: SchemaVersion) -> FailedPrecondition:
    return FailedPrecondition(
        f"the database's schema is at revision {version.revision}, newer than this version supports ({REVISIONS[-1]}); "
        "install the version of DGX Music that created it, or a later one",
        reason="SCHEMA_NEWER",
        metadata={"found": version.revision, "known": REVISIONS[-1], MIN_COMPATIBLE_COLUMN: version.min_compatible},
    )


def _lock(connection: Connection) -> None:
    """Blocks other migrations and all writes until the transaction ends. On SQLite, BEGIN IMMEDIATE has done so."""
    if connection.dialect.name != "postgresql":
        return
    # Another migration may take minutes, whereas writers that do not get out of the way in time are an error.
    timeout = connection.scalar(text("SHOW lock_timeout"))
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    connection.execute(text("SELECT set_config('lock_timeout', :timeout, true)"), {"timeout": timeout})
    # Writers are locked out before the first step because a deadlock with one could abort the migration. Reads continue
    # until the first step that alters a table.
    if own_tables := sorted(set(inspect(connection).get_table_names()) & set(Base.metadata.tables)):
        connection.execute(text(f"LOCK TABLE {', '.join(own_tables)} IN EXCLUSIVE MODE"))


def _run_migrations(connection: Connection, direction: Literal["upgrade", "downgrade"], revision: str) -> None:
    # Which plugins Alembic finds, when it is imported, is of no use in a server's log.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    migrate = command.upgrade if direction == "upgrade" else command.downgrade
    migrate(config, revision)
