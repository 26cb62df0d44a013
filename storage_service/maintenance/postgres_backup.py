"""Backs up and restores a Postgres database with pg_dump, pg_restore and psql of the server's major version.

An older pg_dump refuses to read from a newer server, and an older server may not understand what a newer one writes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from sqlalchemy import text

from dgx_music.errors import FailedPrecondition, ServiceError, Unavailable
from storage_service.database_url import connection_options
from storage_service.db.database import Database
from storage_service.db.declarative_base import Base

_DEBIAN_TOOLS_FOLDER = Path("/usr/lib/postgresql")
"""Where Debian installs the tools of each version. Only one version is on PATH."""

_REVISION = re.compile(r"^COPY \S+alembic_version \(version_num\b[^)]*\) FROM stdin;\n(\w+)\b", re.MULTILINE)

_DISCONNECT_TIMEOUT_SECONDS = 5.0
"""How long other connections may take to end: the server keeps one for a moment after its client has closed it."""

_POLL_SECONDS = 0.1

_WITHOUT_OWNERSHIP = ("--no-owner", "--no-privileges")
"""The role that restores the database owns its tables."""


def dump(database: Database, path: Path) -> None:
    """Writes a consistent dump of the database to `path`, and replaces a file that is already there."""
    tool = _find_tool("pg_dump", database)
    _run(database, [tool, "--format=custom", *_WITHOUT_OWNERSHIP, f"--file={path}", f"--dbname={_libpq_url(database)}"])


def read_revision(database: Database, path: Path) -> str:
    """Returns the schema revision of the dump at `path`. Raises FailedPrecondition if it is damaged or no such dump."""
    read = [_find_tool("pg_restore", database), "--file=-"]
    # Reads all of it first, because the table with the revision may precede a damaged part.
    _run(database, [*read, str(path)], output=subprocess.DEVNULL)
    found = _REVISION.search(_run(database, [*read, "--data-only", "--table=alembic_version", str(path)]))
    if found is None:
        raise FailedPrecondition(f"{path} is not a backup of DGX Music", reason="BACKUP_UNUSABLE")
    return found[1]


def restore(database: Database, path: Path) -> None:
    """Replaces the project's tables by those in the dump, in one transaction.

    Raises Unavailable if there are other connections to the database.
    """
    give_up_at = time.monotonic() + _DISCONNECT_TIMEOUT_SECONDS
    while (others := _count_other_connections(database)) and time.monotonic() < give_up_at:
        time.sleep(_POLL_SECONDS)
    database.dispose()
    if others:
        raise Unavailable(
            f"the database is in use by {others} other connection{'s' * (others > 1)}: stop the servers first",
            reason="DATABASE_IN_USE",
        )
    tables = ", ".join([*Base.metadata.tables, "alembic_version"])
    pg_restore, psql = _find_tool("pg_restore", database), _find_tool("psql", database)
    with tempfile.NamedTemporaryFile(suffix=".sql") as script:
        _run(database, [pg_restore, *_WITHOUT_OWNERSHIP, "--clean", "--if-exists", f"--file={script.name}", str(path)])
        drop = f"--command=SET client_min_messages = warning; DROP TABLE IF EXISTS {tables}"
        options = ["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]
        _run(database, [psql, *options, drop, f"--file={script.name}", f"--dbname={_libpq_url(database)}"])


def _count_other_connections(database: Database) -> int:
    with database.read() as session:
        count = session.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        )
    return int(count or 0)


def _find_tool(name: str, database: Database) -> str:
    """Returns the path of the tool in the server's version. Raises FailedPrecondition if it is not installed."""
    with database.read() as session:
        major = int(session.scalar(text("SHOW server_version_num")) or 0) // 10000
    wrong_versions = []
    for folder in (*os.get_exec_path(), str(_DEBIAN_TOOLS_FOLDER / str(major) / "bin")):
        path = shutil.which(name, path=folder)
        if path is None:
            continue
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
        if version.split(".")[0] == str(major):
            return path
        wrong_versions.append(f"{path} is version {version}")
    raise FailedPrecondition(
        f"this needs {name} of PostgreSQL {major}, the server's version"
        f"{''.join(f'; {found}' for found in wrong_versions)}: "
        f"install the client tools of PostgreSQL {major} (Debian: postgresql-client-{major}) or add them to PATH",
        reason="POSTGRES_TOOL_MISSING",
        metadata={"tool": name, "version": str(major)},
    )


def _libpq_url(database: Database) -> str:
    """Returns the URL without the password, because every user of the machine can read a command's arguments."""
    return database.url.set(drivername="postgresql", password=None).render_as_string()


def _run(database: Database, command: list[str], *, output: int = subprocess.PIPE) -> str:
    environment = {
        **os.environ,
        "PGOPTIONS": f"-c lock_timeout={round(database.busy_timeout_seconds * 1000)}",
        "PGCONNECT_TIMEOUT": str(max(2, round(database.busy_timeout_seconds))),
    }
    options = connection_options(database.url, database.busy_timeout_seconds)
    if "target_session_attrs" in options:
        environment["PGTARGETSESSIONATTRS"] = options["target_session_attrs"]
    if database.url.password is not None:
        environment["PGPASSWORD"] = str(database.url.password)
    result = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        raise _tool_failure(Path(command[0]).name, result.stderr)
    return result.stdout or ""


def _tool_failure(tool: str, stderr: str) -> ServiceError:
    lines = [line for line in stderr.splitlines() if line.strip()] or ["it gave no reason"]
    return FailedPrecondition(f"{tool} failed: {lines[0]}", reason="BACKUP_FAILED", metadata={"tool": tool})
