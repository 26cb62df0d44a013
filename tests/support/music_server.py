"""Runs all services for clients of another thread (`music_server`) or as a process that can be killed
(`KillableServer`)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from gateway.embedded.ownership import Owner, acquire_or_join
from gateway.embedded.services import run_embedded_services
from tests.support.command_line import DGX_MUSIC, environment, read_until
from tests.support.processes import free_ports


@contextmanager
def music_server(data_dir: Path, public_address: str | None = None, **overrides: object) -> Iterator[list[str]]:
    """Runs the services in a thread while the block runs, and yields the addresses of the gateway."""
    ready, stop = Future[list[str]](), Future[None]()

    async def serve() -> None:
        with acquire_or_join(data_dir) as owner:
            assert isinstance(owner, Owner)
            async with run_embedded_services(
                owner, data_dir, public_address=public_address, overrides=overrides
            ) as bound:
                ready.set_result(bound)
                await asyncio.wrap_future(stop)

    with ThreadPoolExecutor(1) as executor:
        with mock.patch.dict(os.environ, environment(), clear=True):
            served = executor.submit(asyncio.run, serve())
            wait([ready, served], return_when=FIRST_COMPLETED)
        try:
            if not served.done():
                yield ready.result()
        finally:
            stop.set_result(None)
            served.result()


class KillableServer:
    """`dgx-music serve` in a process, which can be killed and started again on the same data and port."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self._environment = environment(
            DGX_MUSIC_DATA_DIR=str(data_dir), DGX_MUSIC_GATEWAY_ADDRESS=self.address, **settings
        )

    def start(self) -> None:
        """Returns when it serves."""
        self._process = subprocess.Popen([DGX_MUSIC, "serve"], env=self._environment, stderr=subprocess.PIPE, text=True)
        read_until('"serving"', self._process)
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self._process.stderr.read)  # A full pipe would block the server.
        self._reader.start()

    def kill(self) -> None:
        """Kills it by SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
