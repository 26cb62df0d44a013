"""A storage process that is killed keeps what it acknowledged, and the next one goes on from there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dgx_music.channel import connect
from dgx_music.status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub

PROGRAM = """
import asyncio, sys
from service_runtime.rpc.server import serve_until_signalled
from storage_service.config import StorageSettings
from storage_service.rpc.server import build
settings = StorageSettings(data_dir=sys.argv[1])
asyncio.run(serve_until_signalled([build(settings)], sys.argv[2], settings))
"""


def start(data_dir: Path, address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(data_dir), address], stdout=subprocess.DEVNULL)


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DGX_MUSIC_DATABASE_URL", raising=False)
    address = f"unix:{tmp_path}/s.sock"
    new = pb.CreateGenerationRequest(
        prompt="p", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
    )
    claim = pb.ClaimGenerationRequest(worker_id="w", model_names=["sketch"], lease_seconds=1, wait_seconds=10)
    server = start(tmp_path, address)
    try:
        async with connect(address) as channel:
            stub = StorageServiceStub(channel)
            made = [(await stub.CreateGeneration(new, timeout=60, wait_for_ready=True)).generation.id for _ in range(3)]
            first = await stub.ClaimGeneration(claim, timeout=60)
            server.kill()
            server.wait()
        server = start(tmp_path, address)
        async with connect(address) as channel:
            stub = StorageServiceStub(channel)
            listed = await stub.ListGenerations(pb.ListGenerationsRequest(), timeout=60, wait_for_ready=True)
            assert [row.id for row in listed.generations] == made[::-1]
            claimed = [await stub.ClaimGeneration(claim, timeout=60) for _ in range(3)]
            assert {row.generation.id for row in claimed} == set(made)
            again = next(row for row in claimed if row.generation.id == first.generation.id)
            assert again.generation.attempt == 2
            stale = pb.RenewLeaseRequest(id=made[0], lease_token=first.lease_token, lease_seconds=30)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.RenewLease(stale, timeout=60)
            assert read_error_details(raised.value).reason == "STALE_LEASE"
        server.terminate()
        assert server.wait() == 0
    finally:
        server.kill()
        server.wait()
