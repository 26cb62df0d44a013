"""Export servers as processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from dgx_music.channel import connect
from dgx_music.export.v1 import export_pb2_grpc
from tests.support.export_client import TIMEOUT, Client


@asynccontextmanager
async def export_server(data_dir: Path, **settings: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Client]]:
    """A server on the data directory, ready, and its client; ended with the block, if it has not ended by then."""
    with tempfile.TemporaryDirectory() as folder:  # A socket's path has to be short.
        address = f"unix:{folder}/export.sock"
        environment = {"DGX_MUSIC_DATA_DIR": str(data_dir), "DGX_MUSIC_EXPORT_ADDRESS": address, **settings}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "export_service.rpc.server"),
            env={**os.environ, "DGX_MUSIC_LOG_LEVEL": "warning", **environment},
        )
        try:
            async with connect(address) as channel:
                await asyncio.wait_for(channel.channel_ready(), TIMEOUT)
                yield process, Client(data_dir, export_pb2_grpc.ExportServiceStub(channel))
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
