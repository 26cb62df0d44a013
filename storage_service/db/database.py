"""The database: its engine, and sessions that read or write.

SQLite by default, Postgres (psycopg 3) by URL. On SQLite a commit is durable when it returns (synchronous=FULL), and
what will write begins with BEGIN IMMEDIATE: a transaction that reads first and then writes would fail without waiting
if another wrote in between.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from dgx_music.errors import FailedPrecondition, ServiceError, Unavailable
from service_runtime.failpoints import failpoint
from service_runtime.optional_deps import install_extra_command
from storage_service.db.clock import add_clock
from storage_service.db.json_object import JsonObject, encode
from storage_service.db.sqlite import error_code, journal_mode, set_journal_mode, shares_memory, sqlite3
from storage_service.events.changes import get_recorded_changes

_JSON: dict[str, Any] = {"json_serializer": encode, "json_deserializer": JsonObject}

RETRY_AFTER_SECONDS = 1.0
"""When to come back after the database did not answer."""

_PAGE_BYTES = 8192
"""In SQLite's own 4096 there is room for three generations, and a quarter of each page stays empty."""

_JOURNAL_BYTES = 16 << 20
"""What is left of SQLite's journal after a transaction that wrote more. Twice what a WAL grows to from one checkpoint
to the next: commits to one that is cut, and grows anew, take up to a third longer."""

_POSTGRES_LOCK_TIMEOUT = "55P03"

_SQLITE_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
}


def parse_url(url: str | URL) -> URL:
    """SQLAlchemy's form of a database URL, with the driver that is used. FailedPrecondition if it is not one."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is not None and parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed is not None and parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return parsed.set(drivername="sqlite")
    # The URL itself stays out of the message: it may hold a password.
    raise FailedPrecondition(
        "the database's URL (DGX_MUSIC_DATABASE_URL) must be sqlite:///PATH or postgresql://USER@HOST/DATABASE",
        reason="DATABASE_URL_INVALID",
        metadata={"field": "database_url"},
    )


class DamagedDatabase(FailedPrecondition):
    """The file is no database, or not all of it is any more."""


class Database:
    """Connections to one database. Open one per process; `dispose`, or the end of a `with` block, closes them."""

    def __init__(self, url: str | URL, *, busy_timeout_seconds: float = 5.0, connections: int = 5) -> None:
        self.url = parse_url(url)
        self.busy_timeout_seconds = busy_timeout_seconds
        self.is_sqlite = self.url.drivername == "sqlite"
        self.engine = self._sqlite_engine() if self.is_sqlite else self._postgres_engine(connections)
        self._writing = self.engine.execution_options(writing=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispose()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading only; what it loads stays usable after it. Unavailable if the database is not there."""
        with _errors_as_ours(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end and rolls back on an exception. Unavailable if locked for too long."""
        with _errors_as_ours(), Session(self._writing, expire_on_commit=False) as session:
            yield session
            if changed := bool(get_recorded_changes(session)):
                failpoint("storage.before_commit")
            session.commit()
        if changed:
            failpoint("storage.after_commit")

    @contextmanager
    def connect_for_writing(self) -> Iterator[Connection]:
        """A transaction below the models, for the schema."""
        with _errors_as_ours(), self._writing.begin() as connection:
            yield connection

    @contextmanager
    def outside_transactions(self) -> Iterator[Connection]:
        """A connection for statements that can't be part of a transaction."""
        options: dict[str, Any] = {"begins": False} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        with _errors_as_ours(), self.engine.execution_options(**options).connect() as connection:
            yield connection

    def dispose(self) -> None:
        """Closes every connection."""
        self.engine.dispose()

    def _sqlite_engine(self) -> Engine:
        in_memory = self.url.database in (None, "", ":memory:")
        folder = Path(str(self.url.database)).parent
        options: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {}
        engine = create_engine(
            self.url,
            module=sqlite3,
            connect_args={"check_same_thread": False, "timeout": self.busy_timeout_seconds},
            **_JSON,
            **options,
        )
        if not in_memory:
            _make_folder(folder)
            event.listen(engine, "connect", lambda connection, _: _prepare_file(connection, folder))
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _postgres_engine(self, connections: int) -> Engine:
        try:
            engine = create_engine(
                self.url,
                pool_size=connections,
                max_overflow=0,
                pool_timeout=self.busy_timeout_seconds,
                **_JSON,
                connect_args={
                    "connect_timeout": max(2, round(self.busy_timeout_seconds)),  # libpq takes 1 as 2
                    "options": f"-c lock_timeout={round(self.busy_timeout_seconds * 1000)}",
                },
            )
        except ModuleNotFoundError as error:
            raise FailedPrecondition(
                f"a Postgres database needs psycopg: {install_extra_command('postgres')}",
                reason="POSTGRES_DRIVER_MISSING",
            ) from error
        event.listen(engine, "connect", _prepare_postgres)
        event.listen(engine, "checkout", _check_postgres)
        return engine


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FailedPrecondition(
            f"the database's folder {folder} can't be made ({error.strerror}); "
            "set DGX_MUSIC_DATA_DIR or DGX_MUSIC_DATABASE_URL to where it can",
            reason="DATABASE_FOLDER",
        ) from error


def _prepare_file(connection: sqlite3.Connection, folder: Path) -> None:
    connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")  # Of a new database.
    if not shares_memory(folder):
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # Else one that comes in WAL mode could not be opened.
    set_journal_mode(connection, journal_mode(sqlite3.sqlite_version_info, folder))
    connection.execute("PRAGMA locking_mode=NORMAL")
    connection.execute(f"PRAGMA journal_size_limit={_JOURNAL_BYTES}")


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Python's sqlite3 would begin transactions by itself, and late; `_begin_sqlite` does it.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    add_clock(connection)
    connection.create_function("dgx_casefold", 1, str.casefold, deterministic=True)


def _prepare_postgres(connection: Any, _record: object) -> None:
    from psycopg.types.string import TextLoader  # Only here and in SQLAlchemy: who uses SQLite need not have it.

    # A UUID as the text that it comes as: objects of a list's ids would take a third of its time.
    connection.adapters.register_loader("uuid", TextLoader)


def _check_postgres(connection: Any, _record: object, _proxy: object) -> None:
    """Has a connection that the server has ended replaced before it is used, and all others with it.

    Only where something has come that nobody waited for, mostly that end, is the server asked: asking each time, as the
    pool's `pre_ping` does, takes as long as a statement.
    """
    from psycopg import OperationalError as Ended

    arrived = select.poll()
    try:
        arrived.register(connection.fileno(), select.POLLIN)
        if not arrived.poll(0):
            return
        connection.execute("SELECT 1")
        connection.rollback()
    except Ended as error:
        raise InvalidatePoolError from error


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("begins", True):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writing", False) else "BEGIN")


@contextmanager
def _errors_as_ours() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise _unavailable("every connection to the database is in use") from error
    except DBAPIError as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: DBAPIError) -> ServiceError | None:
    """What a caller should know of a driver's error; None where it is a mistake of ours."""
    original = error.orig
    if isinstance(original, sqlite3.Error):
        code = error_code(original)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return _unavailable("the database is locked by another process", reason="DATABASE_LOCKED")
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            problem = f"the database is damaged: {original}; put a backup in its place: dgx-music db restore FILE"
            return DamagedDatabase(problem, reason="DATABASE_DAMAGED")
        return _unavailable(f"the database can't be used: {original}") if code in _SQLITE_TRANSIENT else None
    if getattr(original, "sqlstate", None) == _POSTGRES_LOCK_TIMEOUT:
        return _unavailable("the database is locked by another process", reason="DATABASE_LOCKED")
    # Connections that broke or were refused, deadlocks, a full disk: what may pass.
    if isinstance(error, OperationalError):
        return _unavailable(f"the database can't be used: {str(original).partition(chr(10))[0]}")
    return None


def _unavailable(problem: str, reason: str = "DATABASE_UNAVAILABLE") -> Unavailable:
    return Unavailable(f"{problem}; try again", reason=reason, retry_after_seconds=RETRY_AFTER_SECONDS)
