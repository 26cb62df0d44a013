"""The database schema: which revision a database is at, whether this version can use it, and how it is migrated.

Each migration says which earlier revision's servers work on its schema as well (`min_compatible`), and the database
keeps that beside its revision: servers of two versions then share one database during an upgrade, or after a return to
the earlier version. See docs/decisions/0025-many-storage-servers.md.

The migrations are Alembic's. Alembic is imported only if a migration has to run: a server whose schema is up to date
starts without it.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from dgx_music.errors import FailedPrecondition
from storage_service.db.database import Database
from storage_service.db.error_translation import Deadlock, locked
from storage_service.db.models import Base

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012", "0013")
"""The revisions that this version supports, oldest first."""

_VERSION_TABLE = "alembic_version"
TEXT_INDEX_TABLE = "prompt_search"
"""The table of the text index (migration 0009), which is no model's; other objects' names begin with its name."""

MIN_COMPATIBLE_COLUMN = "min_compatible"
"""The column beside Alembic's revision. Alembic leaves it alone; `migrations/env.py` writes it."""

_LOCK_TABLES_SECONDS = 60.0
_LOCK_ATTEMPT_MS = 300
"""Less than Postgres's deadlock_timeout, after which it would abort the migration or a writer."""
_LOCK_PAUSE_SECONDS = 0.2

_MIGRATION_LOCK = 0x6467_786D  # "dgxm": the advisory lock of migrations on Postgres
_PREPARATION_LOCK = 0x6467_7870  # "dgxp": that of what is done before them


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
    if not database.is_sqlite:
        _prepare(database, revision)
    try:
        _upgrade_once(database, revision, "EXCLUSIVE")
    except Deadlock:
        # With a transaction that had read a table before the lock, and waits to write to it. Now nobody reads either.
        _upgrade_once(database, revision, "ACCESS EXCLUSIVE")


def _upgrade_once(database: Database, revision: str, lock_mode: str) -> None:
    with database.connect_for_writing() as connection:
        _lock(connection, lock_mode)
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
        if database.is_sqlite:
            connection.execute(text(f"DROP VIEW IF EXISTS {TEXT_INDEX_TABLE}_texts"))
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


def _lock(connection: Connection, lock_mode: str = "ACCESS EXCLUSIVE") -> None:
    """Blocks other migrations and all writes until the transaction ends. On SQLite, BEGIN IMMEDIATE has done so.

    With `lock_mode` ACCESS EXCLUSIVE also all reads, which otherwise go on until the first step that alters a table.
    """
    if connection.dialect.name != "postgresql":
        return
    # Another migration may take minutes, whereas writers that do not get out of the way in time are an error.
    timeout = connection.scalar(text("SHOW lock_timeout"))
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    # Writers are locked out before the first step because a deadlock with one could abort the migration.
    tables = sorted(set(inspect(connection).get_table_names()) & set(Base.metadata.tables))
    give_up_at = time.monotonic() + _LOCK_TABLES_SECONDS
    while tables and not _try_lock(connection, f"LOCK TABLE {', '.join(tables)} IN {lock_mode} MODE"):
        if time.monotonic() > give_up_at:
            raise locked()
        time.sleep(random.uniform(0.5, 1.5) * _LOCK_PAUSE_SECONDS)
    connection.execute(text("SELECT set_config('lock_timeout', :timeout, true)"), {"timeout": timeout})


def _try_lock(connection: Connection, statement: str) -> bool:
    """Locks all tables or none. Gives way quickly: writers take them in another order, and wait while this waits."""
    with suppress(OperationalError), connection.begin_nested():
        connection.execute(text(f"SET LOCAL lock_timeout = {_LOCK_ATTEMPT_MS}"))
        connection.execute(text(statement))
        return True
    return False


def _prepare(database: Database, revision: str) -> None:
    """Runs what migrations of an existing Postgres database can do before their transaction, while servers write."""
    if not _pending_revisions(current_revision(database), revision):
        return
    _silence_plugins()
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(migrations_folder()))
    with database.outside_transactions() as connection:
        # Polled: a concurrently created index waits for all statements that run, also for one that waits for a lock.
        while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _PREPARATION_LOCK}):
            time.sleep(random.uniform(0.5, 1.5) * _LOCK_PAUSE_SECONDS)
        try:
            version = _version_of(connection)
            for one in _pending_revisions(version and version.revision, revision):
                prepare = getattr(scripts.get_revision(one).module, "prepare", None)
                if prepare is not None:
                    prepare(connection)
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _PREPARATION_LOCK})


def _pending_revisions(current: str | None, target: str) -> tuple[str, ...]:
    """Returns the revisions that an existing database has yet to be upgraded to."""
    if current not in REVISIONS:
        return ()
    return REVISIONS[REVISIONS.index(current) + 1 : REVISIONS.index(target) + 1]


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
