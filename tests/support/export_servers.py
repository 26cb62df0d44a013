"""Gives an export service in a process of its own (`run_export_process`), for tests that kill or limit it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dgx_music.channel import connect
from dgx_music.export.v1 import export_pb2_grpc
from tests.support.export_client import TIMEOUT_SECONDS, ExportClient


@asynccontextmanager
async def run_export_process(
    data_dir: Path, *, log: BinaryIO | None = None, **settings: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, ExportClient]]:
    """Starts a server on the data directory and yields its process and a client; terminates it after the block.

    It writes its log to `log`, or else where this process does.
    """
    with tempfile.TemporaryDirectory() as folder:  # The path of a socket must be short.
        address = f"unix:{folder}/export.sock"
        environment = {"DGX_MUSIC_DATA_DIR": str(data_dir), "DGX_MUSIC_EXPORT_ADDRESS": address, **settings}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "export_service.rpc.server"),
            env={**os.environ, "DGX_MUSIC_LOG_LEVEL": "warning", **environment},
            stderr=log,
        )
        try:
            async with connect(address) as channel:
                await asyncio.wait_for(channel.channel_ready(), TIMEOUT_SECONDS)
                yield process, ExportClient(data_dir, export_pb2_grpc.ExportServiceStub(channel))
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
