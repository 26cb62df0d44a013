"""The pods of deploy/kubernetes as plain processes, with their commands, variables, volumes, secrets and probes: they
become ready, make music, and end within the time that they are given."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dgx_music import AsyncClient
from tests.support.kubernetes_manifests import Cluster, build

SERVICE_TOKEN = {"token": secrets.token_hex(32)}


@asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[None]:
    """Starts all pods at once, as Kubernetes does, and waits until they are ready; ends them with the block."""
    try:
        async with asyncio.TaskGroup() as group:
            for pod in cluster.pods:
                group.create_task(cluster.start(pod))
        await asyncio.gather(*(pod.wait_until_ready() for pod in cluster.pods))
        yield
        assert {await pod.check("livenessProbe") for pod in cluster.pods} == {"SERVING"}
        statuses = await asyncio.gather(*(pod.end() for pod in cluster.pods))
        assert set(statuses) == {0}, b"".join(pod.log for pod in cluster.pods if pod.process).decode()
    finally:
        cluster.kill()


def network() -> str:
    return f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"


@pytest.mark.slow
async def test_single_host(tmp_path: Path) -> None:
    cluster = Cluster(build("single-host"), tmp_path, {"service-token": SERVICE_TOKEN}, network=network())
    async with running(cluster):
        gateway = cluster.of("gateway")[0]
        token = await cluster.execute(gateway, "sh", "-c", TOKEN_COMMAND)
        async with AsyncClient(f"{gateway.ip}:50050", token=token) as client:
            made = await client.generate("techno at 130 BPM", duration=1.0)
        (export,) = cluster.of("export")
        assert (export.folder / "data" / str(made.file_path)).is_file()


TOKEN_COMMAND = "DGX_MUSIC_TOKEN_FILE=$DGX_MUSIC_SERVICE_TOKEN_FILE dgx-music token create laptop"
