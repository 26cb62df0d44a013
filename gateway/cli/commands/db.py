"""What `dgx-music db …` does: each function gives the line that says what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from gateway.cli.commands.serve import owned, settings_of
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.output_files import require_writable
from service_runtime.observability.logging import configure_logging
from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.maintenance import backup
from storage_service.maintenance import vacuum as vacuum_module

BACKUPS = "backups"
"""The folder in the data directory for those that were given no name."""


def init(data_dir: Path | None) -> str:
    """Creates the database if there is none."""
    with _database(data_dir) as (database, shown):
        found = schema.current_revision(database)
        if found is not None:
            return f"there is a database already, at revision {found}: {shown}"
        schema.upgrade_database(database)
        return f"created the database, at revision {schema.current_revision(database)}: {shown}"


def migrate(data_dir: Path | None) -> str:
    """Brings the database to this version's schema."""
    with _database(data_dir) as (database, shown):
        before = schema.current_revision(database)
        schema.upgrade_database(database)
        return f"the database is at revision {schema.current_revision(database)}, from {before or 'none'}: {shown}"


def reset(data_dir: Path | None) -> str:
    """Deletes all rows."""
    with _database(data_dir) as (database, shown):
        schema.reset_database(database)
        return f"the database is empty, at revision {schema.current_revision(database)}: {shown}"


def back_up(data_dir: Path | None, path: Path | None, *, overwrite: bool) -> str:
    """Writes a copy of the database, while servers may go on."""
    with _existing(data_dir) as (database, folder):
        if path is None:
            suffix = "db" if database.is_sqlite else "dump"
            path = folder / BACKUPS / f"dgx_music-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
        else:
            require_writable([path], "FILE", overwrite=overwrite)
        backup.create_backup(database, path)
        return f"backed up to {path.absolute()}, {path.stat().st_size / 1e6:.1f} MB"


def restore(data_dir: Path | None, path: Path) -> str:
    """Puts a copy in the place of the database."""
    with _database(data_dir) as (database, shown):
        revision = backup.restore(database, path)
        return f"restored {shown} from {path}, at revision {revision}" + (
            "" if revision == schema.REVISIONS[-1] else ": now run `dgx-music db migrate`"
        )


def vacuum(data_dir: Path | None) -> str:
    """Gives space of deleted rows back, and renews what the database knows of its tables to plan queries."""
    with _database(data_dir) as (database, shown):
        before, after = vacuum_module.vacuum(database)
        return f"the database takes {after / 1e6:.1f} MB, of {before / 1e6:.1f} MB before: {shown}"


def check(data_dir: Path | None, *, read_files: bool) -> Iterator[str]:
    """What is wrong, a line each, in the database and with its files. Servers may go on meanwhile."""
    from gateway.cli.commands.db_check import findings

    with _existing(data_dir) as (database, folder):
        for finding in findings(database, folder, read_files=read_files):
            yield f"{finding.where}: {finding.problem}"


def shown(data_dir: Path | None) -> str:
    """Which database these work on, without its password."""
    return _settings(data_dir).shown_database_url()


def has_rows(data_dir: Path | None) -> bool:
    """Whether there is anything in the database that a person could miss; also where that can't be told."""
    settings = _settings(data_dir)
    with _opened(settings) as database:
        return not _is_absent(database) and vacuum_module.has_rows(database)


@contextmanager
def _database(data_dir: Path | None) -> Iterator[tuple[Database, str]]:
    """The database and how it is shown, while no server of this data directory is up."""
    settings = _settings(data_dir)
    with owned(settings.data_dir), _opened(settings) as database:
        yield database, settings.shown_database_url()


@contextmanager
def _existing(data_dir: Path | None) -> Iterator[tuple[Database, Path]]:
    """The database and the data directory; CommandError where there is none."""
    settings = _settings(data_dir)
    with _opened(settings) as database:
        if _is_absent(database):
            raise CommandError(f"there is no database {settings.shown_database_url()}; `dgx-music db init` makes one")
        yield database, settings.data_dir


@contextmanager
def _opened(settings: StorageSettings) -> Iterator[Database]:
    configure_logging("warning", "console")
    with Database(
        settings.resolved_database_url(), busy_timeout_seconds=settings.database_timeout_seconds, connections=1
    ) as database:
        yield database


def _is_absent(database: Database) -> bool:
    """Looking into a SQLite file that is not there would make it."""
    return database.is_sqlite and not Path(str(database.url.database)).is_file()


def _settings(data_dir: Path | None) -> StorageSettings:
    return StorageSettings(data_dir=settings_of(data_dir).data_dir)
