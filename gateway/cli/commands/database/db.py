"""`dgx-music db …`: each function returns its result, as a line and as the fields of a JSON object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from gateway.cli.commands.serve import acquire_ownership, resolve_settings
from gateway.cli.display.console import Console
from gateway.cli.display.units import format_size
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.files.output_files import require_writable
from service_runtime.file_modes import make_private_folder
from service_runtime.observability.logging import configure_logging
from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.maintenance import backup
from storage_service.maintenance import vacuum as vacuum_module
from storage_service.search.index_repair import rebuild_index

BACKUPS = "backups"
"""The folder in the data directory for backups without a given path."""


class Result(NamedTuple):
    """What a command has done."""

    line: str
    fields: dict[str, Any]

    def print(self, console: Console) -> None:
        """Prints the line, or the fields as JSON."""
        if console.as_json:
            console.print_object(self.fields)
        else:
            console.print_line(self.line)


def init(data_dir: Path | None) -> Result:
    """Creates the database if it does not exist."""
    with _open_exclusively(data_dir) as (database, url):
        revision = schema.current_revision(database)
        if revision is not None:
            line = f"the database already exists, at revision {revision}: {url}"
            return Result(line, {"url": url, "revision": revision, "is_new": False})
        schema.upgrade_database(database)
        revision = schema.current_revision(database)
        line = f"created the database, at revision {revision}: {url}"
        return Result(line, {"url": url, "revision": revision, "is_new": True})


def migrate(data_dir: Path | None) -> Result:
    """Upgrades the database to the schema of this version."""
    with _open_exclusively(data_dir) as (database, url):
        before = schema.current_revision(database)
        schema.upgrade_database(database)
        after = schema.current_revision(database)
        line = f"migrated the database from revision {before or 'none'} to {after}: {url}"
        return Result(line, {"url": url, "revision": after, "previous_revision": before})


def reset(data_dir: Path | None) -> Result:
    """Deletes all rows."""
    with _open_exclusively(data_dir) as (database, url):
        schema.reset_database(database)
        revision = schema.current_revision(database)
        return Result(f"emptied the database, at revision {revision}: {url}", {"url": url, "revision": revision})


def create_backup(data_dir: Path | None, path: Path | None, *, overwrite: bool) -> Result:
    """Writes a consistent copy of the database; servers may be running."""
    with _open_existing(data_dir) as (database, folder):
        if path is None:
            suffix = "db" if database.is_sqlite else "dump"
            path = folder / BACKUPS / f"dgx_music-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{suffix}"
            make_private_folder(path.parent)
        else:
            require_writable([path], "FILE", overwrite=overwrite)
        backup.create_backup(database, path)
        size = path.stat().st_size
        line = f"backed up the database to {path.absolute()} ({format_size(size)})"
        return Result(line, {"path": str(path.absolute()), "size_bytes": size})


def restore(data_dir: Path | None, path: Path) -> Result:
    """Replaces the database with a backup."""
    with _open_exclusively(data_dir) as (database, url):
        revision = backup.restore(database, path)
        is_current = revision == schema.REVISIONS[-1]
        way_on = "" if is_current else "; now run `dgx-music db migrate`"
        line = f"restored {url} from {path}, at revision {revision}{way_on}"
        return Result(line, {"url": url, "revision": revision, "needs_migration": not is_current})


def vacuum(data_dir: Path | None) -> Result:
    """Reclaims the space of deleted rows, and updates the statistics of the query planner."""
    with _open_exclusively(data_dir) as (database, url):
        before, after = vacuum_module.vacuum(database)
        line = f"reduced the database from {format_size(before)} to {format_size(after)}: {url}"
        return Result(line, {"url": url, "previous_bytes": before, "size_bytes": after})


def reindex(data_dir: Path | None) -> Result:
    """Builds the index of text in prompts anew."""
    with _open_exclusively(data_dir) as (database, url):
        schema.check_database(database)
        rebuild_index(database)
        return Result(f"rebuilt the text index: {url}", {"url": url})


def check(data_dir: Path | None, *, read_files: bool) -> Iterator[Result]:
    """Yields each problem in the database and with its audio files; servers may be running."""
    from export_service.config import ExportSettings
    from gateway.cli.commands.database.db_check import find_problems

    with _open_existing(data_dir) as (database, folder):
        library_url = ExportSettings.model_validate({"data_dir": folder}).library_url
        for finding in find_problems(database, folder, read_files=read_files, library_url=library_url):
            remedy = f" ({finding.remedy})" if finding.remedy else ""
            yield Result(f"{finding.where}: {finding.problem}{remedy}", asdict(finding))


def display_url(data_dir: Path | None) -> str:
    """Returns the URL of the database without its password."""
    return _settings(data_dir).shown_database_url()


def has_rows(data_dir: Path | None) -> bool:
    """Returns whether a restore would replace any data; also true if that cannot be determined."""
    settings = _settings(data_dir)
    with _open_database(settings) as database:
        return not _is_absent(database) and vacuum_module.has_rows(database)


@contextmanager
def _open_exclusively(data_dir: Path | None) -> Iterator[tuple[Database, str]]:
    """Yields the database and its URL for display. Raises CommandError if a server is using the data directory."""
    settings = _settings(data_dir)
    with acquire_ownership(settings.data_dir), _open_database(settings) as database:
        yield database, settings.shown_database_url()


@contextmanager
def _open_existing(data_dir: Path | None) -> Iterator[tuple[Database, Path]]:
    """Yields the database and the data directory. Raises CommandError if the database does not exist."""
    settings = _settings(data_dir)
    with _open_database(settings) as database:
        if _is_absent(database):
            url = settings.shown_database_url()
            raise CommandError(f"the database {url} does not exist; create it with `dgx-music db init`")
        yield database, settings.data_dir


@contextmanager
def _open_database(settings: StorageSettings) -> Iterator[Database]:
    configure_logging("warning", "console")
    with Database(
        settings.resolved_database_url(), busy_timeout_seconds=settings.database_timeout_seconds, connections=1
    ) as database:
        yield database


def _is_absent(database: Database) -> bool:
    """Returns whether a SQLite file does not exist yet; opening it would create it."""
    return database.is_sqlite and not Path(str(database.url.database)).is_file()


def _settings(data_dir: Path | None) -> StorageSettings:
    return StorageSettings(data_dir=resolve_settings(data_dir).data_dir)
