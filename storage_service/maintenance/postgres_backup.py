"""Copies of a Postgres database, by its own tools: pg_dump, pg_restore and psql, of the server's major version.

An older pg_dump refuses a newer server; what a newer one writes, an older server may not understand.
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
from storage_service.db.database import Database
from storage_service.db.declarative_base import Base

_DEBIAN = Path("/usr/lib/postgresql")
"""Where Debian keeps the tools of each version; one of them is on PATH."""

_REVISION = re.compile(r"^COPY \S+alembic_version \(version_num\) FROM stdin;\n(\w+)\n", re.MULTILINE)

_LEAVING_SECONDS = 5.0
"""How long others may take to go: the server's end of a connection lives on for a moment after it was closed."""

_LOOK_AGAIN_SECONDS = 0.1

_OF_ANYBODY = ("--no-owner", "--no-privileges")
"""Who restores it owns it."""


def dump(database: Database, path: Path) -> None:
    """Writes the database as of one moment to `path`, over what is there."""
    tool = _tool("pg_dump", database)
    _run(database, [tool, "--format=custom", *_OF_ANYBODY, f"--file={path}", f"--dbname={_address(database)}"])


def revision_in(database: Database, path: Path) -> str:
    """The schema's revision in the dump at `path`. FailedPrecondition where it is none, or damaged."""
    read = [_tool("pg_restore", database), "--file=-"]
    _run(
        database, [*read, str(path)], output=subprocess.DEVNULL
    )  # All of it: the table we want may come before a hole.
    found = _REVISION.search(_run(database, [*read, "--data-only", "--table=alembic_version", str(path)]))
    if found is None:
        raise FailedPrecondition(f"{path} is not a backup of DGX Music", reason="BACKUP_UNUSABLE")
    return found[1]


def restore(database: Database, path: Path) -> None:
    """Replaces our tables by those in the dump, in one transaction. Unavailable where others are connected."""
    give_up_at = time.monotonic() + _LEAVING_SECONDS
    while (others := _other_connections(database)) and time.monotonic() < give_up_at:
        time.sleep(_LOOK_AGAIN_SECONDS)
    database.dispose()
    if others:
        raise Unavailable(
            f"{others} other connections use the database: stop the servers first", reason="DATABASE_IN_USE"
        )
    tables = ", ".join([*Base.metadata.tables, "alembic_version"])
    restoring, running = _tool("pg_restore", database), _tool("psql", database)
    with tempfile.NamedTemporaryFile(suffix=".sql") as script:
        _run(database, [restoring, *_OF_ANYBODY, "--clean", "--if-exists", f"--file={script.name}", str(path)])
        drop = f"--command=SET client_min_messages = warning; DROP TABLE IF EXISTS {tables}"
        once = ["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]
        _run(database, [running, *once, drop, f"--file={script.name}", f"--dbname={_address(database)}"])


def _other_connections(database: Database) -> int:
    with database.read() as session:
        count = session.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        )
    return int(count or 0)


def _tool(name: str, database: Database) -> str:
    with database.read() as session:
        major = int(session.scalar(text("SHOW server_version_num")) or 0) // 10000
    seen = []
    for folder in (*os.get_exec_path(), str(_DEBIAN / str(major) / "bin")):
        path = shutil.which(name, path=folder)
        if path is None:
            continue
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
        if version.split(".")[0] == str(major):
            return path
        seen.append(f"{path} is of {version}")
    raise FailedPrecondition(
        f"this takes the {name} of PostgreSQL {major}, as the server is of that version"
        f"{''.join(f'; {one}' for one in seen)}: "
        f"install PostgreSQL {major}'s client (Debian: postgresql-client-{major}), or put its bin folder on PATH",
        reason="POSTGRES_TOOL_MISSING",
        metadata={"tool": name, "version": str(major)},
    )


def _address(database: Database) -> str:
    """For libpq, without the password: what stands in a command anybody may read."""
    return database.url.set(drivername="postgresql", password=None).render_as_string()


def _run(database: Database, command: list[str], *, output: int = subprocess.PIPE) -> str:
    environment = {
        **os.environ,
        "PGOPTIONS": f"-c lock_timeout={round(database.busy_timeout_seconds * 1000)}",
        "PGCONNECT_TIMEOUT": str(max(2, round(database.busy_timeout_seconds))),
    }
    if database.url.password is not None:
        environment["PGPASSWORD"] = str(database.url.password)
    done = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise _failure(Path(command[0]).name, done.stderr)
    return done.stdout or ""


def _failure(tool: str, said: str) -> ServiceError:
    lines = [line for line in said.splitlines() if line.strip()] or ["it gave no reason"]
    return FailedPrecondition(f"{tool} failed: {lines[0]}", reason="BACKUP_FAILED", metadata={"tool": tool})
