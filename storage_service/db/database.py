"""The database: its engine, and sessions for reading and for writing.

SQLite by default, Postgres (psycopg 3) by URL. On SQLite a commit is durable when it returns (synchronous=FULL), and a
write transaction begins with BEGIN IMMEDIATE: one that first reads and then writes would fail without waiting if
another transaction wrote in between.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from dgx_music.errors import FailedPrecondition
from service_runtime.failpoints import failpoint
from service_runtime.file_modes import make_data_dir
from service_runtime.optional_deps import install_extra_command
from storage_service.database_url import connection_options, parse_url
from storage_service.db.clock import register_clock
from storage_service.db.error_translation import translate_error, unavailable
from storage_service.db.open_files import OpenFiles
from storage_service.db.sqlite import (
    create_file,
    error_code,
    journal_mode,
    set_journal_mode,
    sqlite3,
    supports_shared_memory,
)
from storage_service.db.types import LazyJsonObject, encode_json
from storage_service.events.changes import get_recorded_changes

_ENGINE_OPTIONS: dict[str, Any] = {
    "json_serializer": encode_json,
    "json_deserializer": LazyJsonObject,
    "hide_parameters": True,  # An error's text gets into logs, and the parameters of a statement may be prompts.
}

_PAGE_BYTES = 8192
"""SQLite's default of 4096 holds only three generations per page, and a quarter of each page stays empty."""

_MAX_JOURNAL_BYTES = 16 << 20
"""SQLite truncates a larger journal to this size. Twice what a WAL grows to between two checkpoints: commits to a WAL
that was truncated and grows again take up to a third longer."""


class Database:
    """The connections to one database. Create one per process; `dispose` or the end of a `with` block closes them."""

    def __init__(self, url: str | URL, *, busy_timeout_seconds: float = 5.0, connections: int = 5) -> None:
        self.url = parse_url(url)
        self.busy_timeout_seconds = busy_timeout_seconds
        self.is_sqlite = self.url.drivername == "sqlite"
        self._files: OpenFiles | None = None
        self.engine = self._sqlite_engine() if self.is_sqlite else self._postgres_engine(connections)
        self._write_engine = self.engine.execution_options(is_write=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yields a session for reading only. What it loads stays usable. Raises Unavailable if the database is not."""
        with self._translate_errors(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Yields a session that commits at the end and rolls back on an exception. Raises Unavailable if locked."""
        with self._translate_errors(), Session(self._write_engine, expire_on_commit=False) as session:
            yield session
            if changed := bool(get_recorded_changes(session)):
                failpoint("storage.before_commit")
            session.commit()
        if changed:
            failpoint("storage.after_commit")

    @contextmanager
    def connect_for_writing(self) -> Iterator[Connection]:
        """Yields a connection in a write transaction, for statements on the schema."""
        with self._translate_errors(), self._write_engine.begin() as connection:
            yield connection

    @contextmanager
    def outside_transactions(self) -> Iterator[Connection]:
        """Yields a connection for statements that can't run in a transaction."""
        options: dict[str, Any] = {"begins_transaction": False} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        with self._translate_errors(), self.engine.execution_options(**options).connect() as connection:
            yield connection

    def dispose(self) -> None:
        """Closes every connection."""
        self.engine.dispose()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        if self._files is not None:
            self._files.check()
        try:
            yield
        except PoolTimeout as error:
            raise unavailable("all connections to the database are in use") from error
        except DBAPIError as error:
            translated = translate_error(error, Path(str(self.url.database)).parent)
            if translated is None:
                raise
            raise translated from error
        finally:
            if self._files is not None:
                self._files.record()

    def _sqlite_engine(self) -> Engine:
        in_memory = self.url.database in (None, "", ":memory:")
        folder = Path(str(self.url.database)).parent
        options: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {}
        engine = create_engine(
            self.url,
            module=sqlite3,
            connect_args={"check_same_thread": False, "timeout": self.busy_timeout_seconds},
            **_ENGINE_OPTIONS,
            **options,
        )
        if not in_memory:
            _create_folder(folder)
            path, files = Path(str(self.url.database)), OpenFiles(Path(str(self.url.database)))
            self._files = files
            event.listen(engine, "do_connect", lambda *_: create_file(path))
            event.listen(engine, "connect", lambda connection, _: _configure_sqlite_file(connection, folder))
            event.listen(engine, "connect", lambda *_: files.add_connection())
            event.listen(engine, "close", lambda *_: files.remove_connection())
        event.listen(engine, "connect", _configure_sqlite_connection)
        event.listen(engine, "begin", _begin_sqlite_transaction)
        event.listen(engine, "handle_error", _reopen_if_read_only)
        return engine

    def _postgres_engine(self, connections: int) -> Engine:
        try:
            engine = create_engine(
                self.url,
                pool_size=connections,
                max_overflow=0,
                pool_timeout=self.busy_timeout_seconds,
                **_ENGINE_OPTIONS,
                connect_args=connection_options(self.url, self.busy_timeout_seconds),
            )
        except ModuleNotFoundError as error:
            raise FailedPrecondition(
                f"a Postgres database requires psycopg; install it with: {install_extra_command('postgres')}",
                reason="POSTGRES_DRIVER_MISSING",
            ) from error
        lock_timeout_ms = round(self.busy_timeout_seconds * 1000)
        event.listen(engine, "connect", lambda connection, _: _configure_postgres(connection, lock_timeout_ms))
        event.listen(engine, "checkout", _replace_dead_connection)
        return engine


def _create_folder(folder: Path) -> None:
    try:
        make_data_dir(folder)
    except OSError as error:
        raise FailedPrecondition(
            f"failed to create the database's folder {folder} ({error.strerror}); "
            "set DGX_MUSIC_DATA_DIR or DGX_MUSIC_DATABASE_URL to a writable location",
            reason="DATABASE_FOLDER",
        ) from error


def _configure_sqlite_file(connection: sqlite3.Connection, folder: Path) -> None:
    connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")  # Only affects a new database.
    if not supports_shared_memory(folder):
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # Required to open a database that is in WAL mode.
    set_journal_mode(connection, journal_mode(sqlite3.sqlite_version_info, folder))
    connection.execute("PRAGMA locking_mode=NORMAL")
    connection.execute(f"PRAGMA journal_size_limit={_MAX_JOURNAL_BYTES}")


def _configure_sqlite_connection(connection: sqlite3.Connection, _record: object) -> None:
    # Python's sqlite3 would begin transactions by itself, and too late; `_begin_sqlite_transaction` does it instead.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    register_clock(connection)
    connection.create_function("dgx_casefold", 1, str.casefold, deterministic=True)


def _reopen_if_read_only(context: ExceptionContext) -> None:
    """Makes the pool replace all connections: one that was opened when its file was read-only remains so for ever."""
    error = context.original_exception
    if isinstance(error, sqlite3.Error) and error_code(error) == sqlite3.SQLITE_READONLY:
        context.is_disconnect = True


def _configure_postgres(connection: Any, lock_timeout_ms: int) -> None:
    from psycopg.types.string import TextLoader  # Imported here because SQLite does not need psycopg.

    # Leaves UUIDs as the text that the server sends: building UUID objects would be a third of the time of a list.
    connection.adapters.register_loader("uuid", TextLoader)
    # Not as an option of the connection, which poolers do not pass on.
    connection.execute(f"SET lock_timeout = {lock_timeout_ms}")
    connection.commit()


def _replace_dead_connection(connection: Any, _record: object, _proxy: object) -> None:
    """Makes the pool replace a connection that the server has closed, and all others with it, before it is used.

    The server is queried only if unexpected data has arrived, which usually is the end of the connection. A query for
    each use, as with the pool's `pre_ping`, would take as long as a statement.
    """
    from psycopg import OperationalError as ConnectionClosed

    poller = select.poll()
    try:
        poller.register(connection.fileno(), select.POLLIN)
        if not poller.poll(0):
            return
        connection.execute("SELECT 1")
        connection.rollback()
    except ConnectionClosed as error:
        raise InvalidatePoolError from error


def _begin_sqlite_transaction(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("begins_transaction", True):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("is_write", False) else "BEGIN")
