"""Gives a real S3 server (SeaweedFS, one process on loopback), and empty buckets on it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.processes import free_ports

if TYPE_CHECKING:
    from obstore.store import S3Store

WEED = Path(sys.executable).with_name("weed")
SECONDS = 60.0
"""Limit for a start."""


@dataclass(frozen=True)
class Account:
    """An access key, and what it may do in every bucket."""

    access_key_id: str
    secret_access_key: str
    actions: tuple[str, ...]


OWNER = Account("owner-key", "owner-secret-5b1f", ("Read", "Write", "List", "Tagging"))
"""May do with objects what an export service does, and can't create buckets."""
READER = Account("reader-key", "reader-secret-90ac", ("Read", "List"))
ADMINISTRATOR = Account("admin-key", "admin-secret-77d2", ("Admin", "Read", "Write", "List", "Tagging"))
ACCOUNTS = OWNER, READER, ADMINISTRATOR
VOLUME_MEGABYTES = 64


class S3Server:
    """A server on a folder of its own, at the same address whenever it runs."""

    def __init__(self, folder: Path, *, volumes: int = 100) -> None:
        """`volumes` of 64 MB each are all that it can store."""
        self._folder, self._volumes = folder, volumes
        self._ports = free_ports(8)
        self.address = f"127.0.0.1:{self._ports[0]}"
        self._process: subprocess.Popen[bytes] | None = None
        self.log_path = folder / "log"

    def start(self, *, is_full: bool = False) -> None:
        """Returns when the server stores objects, after 3 to 8 s, or with `is_full` when it says that it can't."""
        accounts = [
            {"name": account.access_key_id, "credentials": [_to_credentials(account)], "actions": account.actions}
            for account in ACCOUNTS
        ]
        (self._folder / "accounts.json").write_text(json.dumps({"identities": accounts}))
        (self._folder / "data").mkdir(exist_ok=True)
        names = "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc"
        ports = dict(zip((*names, "filer.port", "filer.port.grpc"), self._ports, strict=True))
        options = ports | {
            "dir": self._folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            "master.resumeState": "false",
            "master.volumeSizeLimitMB": VOLUME_MEGABYTES,
            "volume.max": self._volumes,
            "volume.preStopSeconds": 0,
            "volume.minFreeSpace": "100" if is_full else "1",
            "s3.config": self._folder / "accounts.json",
            "s3.iam": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
        }
        arguments = [f"-{name}={value}" for name, value in options.items()]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [WEED, "-logtostderr=true", "server", "-filer", "-s3", *arguments], stdout=log, stderr=log
            )
        self._wait_until_answering(is_full=is_full)

    def kill(self) -> None:
        """Ends the process at once. What it has acknowledged is there after the next `start`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Kills the server and starts it again."""
        self.kill()
        self.start()

    @property
    def pid(self) -> int:
        """Of the process, for signals."""
        assert self._process is not None
        return self._process.pid

    @contextmanager
    def bucket(self) -> Iterator[str]:
        """Yields the name of a new, empty bucket. What is in it is deleted with the server."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        store = self.store(name, ADMINISTRATOR)
        store.put("created", b"")  # SeaweedFS creates the bucket of an administrator's object.
        store.delete("created")
        yield name

    def store(self, bucket: str, account: Account = OWNER, *, address: str = "", **options: Any) -> S3Store:
        """Returns a client of the bucket, by another way to the server if an address is given."""
        from obstore.store import S3Store

        return S3Store(
            bucket,
            endpoint=f"http://{address or self.address}",
            region="us-east-1",
            access_key_id=account.access_key_id,
            secret_access_key=account.secret_access_key,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": timedelta(seconds=30)},
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=30)},
            **options,
        )

    def settings(self, bucket: str, account: Account = OWNER, *, address: str = "", prefix: str = "") -> dict[str, str]:
        """Returns the environment variables with which an export service keeps its library in the bucket.

        `address` is another way to the server, such as that of `tests.support.cut_connection.forwarding_to`.
        """
        return {
            "DGX_MUSIC_LIBRARY_URL": f"s3://{bucket}/{prefix}".rstrip("/"),
            "AWS_ENDPOINT_URL": f"http://{address or self.address}",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": account.access_key_id,
            "AWS_SECRET_ACCESS_KEY": account.secret_access_key,
        }

    def _wait_until_answering(self, *, is_full: bool) -> None:
        assert self._process is not None
        store, error = self.store("test-start", ADMINISTRATOR), None
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self._ports[0]), 1).close()
                try:
                    store.put("started", b"x")
                except Exception as caught:  # The client's errors have no common base.
                    error = caught
                    if is_full and "500 Internal Server Error" in str(error):
                        return
                else:
                    return
            time.sleep(0.02)
        raise AssertionError(f"{error}\n{self.log_path.read_text()[-4000:]}")


@contextmanager
def s3_server(*, volumes: int = 100) -> Iterator[S3Server]:
    """Yields a server that runs while the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="dgx-s3-"))
    server = S3Server(folder, volumes=volumes)
    try:
        server.start()
        yield server
    finally:
        server.kill()  # To end by itself takes it 15 s.
        shutil.rmtree(folder, ignore_errors=True)


def _to_credentials(account: Account) -> dict[str, str]:
    return {"accessKey": account.access_key_id, "secretKey": account.secret_access_key}
