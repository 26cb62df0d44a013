"""Gives an export service in a process of its own (`run_export_process`), for tests that kill or limit it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import BinaryIO

import grpc.aio

from dgx_music.channel import connect
from dgx_music.export.v1 import export_pb2_grpc
from tests.support.export_client import TIMEOUT_SECONDS, ExportClient

CONTROL_VARIABLE = "DGX_MUSIC_TEST_FAULTS"
"""Names the pipes for commands and answers of `faulty_export_server`."""
TO = " to "
"""Precedes the new path in a step that renames."""


@asynccontextmanager
async def run_export_process(
    data_dir: Path,
    *,
    log: BinaryIO | None = None,
    module: str = "export_service.rpc.server",
    prefix: Sequence[str] = (),
    **settings: str,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, ExportClient]]:
    """Starts a server on the data directory and yields its process and a client; terminates it after the block.

    It writes its log to `log`, or else where this process does. `module` is run as the server, by the command `prefix`.
    """
    with tempfile.TemporaryDirectory() as folder:  # The path of a socket must be short.
        address = f"unix:{folder}/export.sock"
        environment = {"DGX_MUSIC_DATA_DIR": str(data_dir), "DGX_MUSIC_EXPORT_ADDRESS": address, **settings}
        process = await asyncio.create_subprocess_exec(
            *(*prefix, sys.executable, "-m", module),
            env={**os.environ, "DGX_MUSIC_LOG_LEVEL": "warning", **environment},
            stderr=log,
        )
        try:
            async with connect(address) as channel:
                await _wait_until_ready(channel, process)
                yield process, ExportClient(data_dir, export_pb2_grpc.ExportServiceStub(channel))
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _wait_until_ready(channel: grpc.aio.Channel, process: asyncio.subprocess.Process) -> None:
    ready, ended = asyncio.ensure_future(channel.channel_ready()), asyncio.ensure_future(process.wait())
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        assert ready.done(), f"the server ended with status {process.returncode}"
    finally:
        ready.cancel()
        ended.cancel()


class StepFaults:
    """Commands to a server that runs as `tests.support.faulty_export_server`."""

    def __init__(self, folder: Path) -> None:
        pipes = folder / "commands", folder / "answers"
        for pipe in pipes:
            os.mkfifo(pipe)
        # For reading and writing: so that a server that is killed ends neither.
        commands, answers = (os.open(pipe, os.O_RDWR) for pipe in pipes)
        self._writer, self._reader = os.fdopen(commands, "w"), os.fdopen(answers)
        self.variable = " ".join(map(str, pipes))
        self.process_id = 0
        """Of the service that obeyed last. One that was killed is followed by another."""

    def arm(self, fault: str, at: int) -> list[str]:
        """Has the step with this number fail, counted from 1 from now on; with 0, none. Returns the steps before,
        each as an event of Python and a path.
        """
        print(fault, at, file=self._writer, flush=True)
        process_id, *steps = self._reader.readline().rstrip("\n").split(",")
        self.process_id = int(process_id)
        return steps

    def close(self) -> None:
        self._writer.close()
        self._reader.close()


@asynccontextmanager
async def run_faulty_export_process(data_dir: Path) -> AsyncIterator[tuple[ExportClient, StepFaults]]:
    """Starts a server of which any step that changes the file system can be made to fail."""
    with tempfile.TemporaryDirectory() as folder, closing(StepFaults(Path(folder))) as faults:
        settings = {"module": "tests.support.faulty_export_server", CONTROL_VARIABLE: faults.variable}
        async with run_export_process(data_dir, **settings) as (_, client):
            yield client, faults
