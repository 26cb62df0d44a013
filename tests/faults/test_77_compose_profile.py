"""The profile `many` of compose.yaml as plain processes, on a real Postgres and a real S3 server: one of each two
services is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dgx_music import AsyncClient
from tests.support.compose_containers import ROOT, Containers, of_profiles, read_env_file
from tests.support.health import wait_until_healthy
from tests.support.postgres import scratch_database
from tests.support.s3_server import S3Server

SECRETS = {"DGX_MUSIC_POSTGRES_PASSWORD": "p", "AWS_SECRET_ACCESS_KEY": "s"}


@pytest.mark.slow
async def test_one_of_each_two_is_killed(
    tmp_path: Path, postgres: psycopg.Connection[Any], s3: S3Server, bucket: str
) -> None:
    with scratch_database(postgres) as url:
        variables = SECRETS | read_env_file(ROOT / "deploy/many.env", SECRETS)
        variables |= s3.settings(bucket, prefix="library") | {"DGX_MUSIC_DATABASE_URL": url, "DGX_MUSIC_DEVICES": "cpu"}
        containers = Containers(of_profiles("many"), tmp_path, variables)
        try:
            await asyncio.gather(*map(containers.start, containers.services))
            await asyncio.gather(*map(wait_until_healthy, map(containers.address, containers.services)))
            gateways = f"ipv4:{containers.address('gateway')},{containers.address('gateway-2')}"
            async with AsyncClient(gateways) as client:
                created = [await client.submit(f"house {number}", duration=10.0) for number in range(8)]
                for name in ("storage-2", "export-2", "gateway-2"):
                    containers.processes[name].kill()
                for one in created:
                    finished = await one.wait()
                    assert len(await finished.read()) == finished.message.file_size_bytes
        finally:
            await containers.close()
