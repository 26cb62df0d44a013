"""Fault 69: on a Ray cluster, actors, the servers that they run, and a node are killed. Ray starts the servers again,
the generations go on, and nothing is left when they are ended."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.command_line import Shell
from tests.support.processes import free_ports
from tests.support.ray_nodes import RayNodes, ray_nodes
from tests.support.tone_processes import ToneProcesses

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
SECONDS = 120.0
"""Of audio: long enough that a worker is still at it when it is stopped."""
WORKERS = ("generation-0", "generation-1")
SECRET = "canary-service-token-0123456789abcdef"


class Deployment:
    """The services on the cluster, and the command that manages them."""

    def __init__(self, data_dir: Path, nodes: RayNodes) -> None:
        self.nodes = nodes
        self.services = ToneProcesses(data_dir)
        self.shell = Shell(data_dir)
        self.port = str(free_ports(1)[0])

    async def run(self, *arguments: str, status: int = 0, **settings: str) -> list[dict[str, Any]]:
        """Runs `dgx-music ray …`; returns the servers that it prints."""
        own = {f"{name.upper()}_ADDRESS": self.services.address(name) for name in ("storage", "export", "gateway")}
        own |= {"LEASE_SECONDS": "2", "RENEW_INTERVAL_SECONDS": "0.1", "LEASE_SWEEP_SECONDS": "0.2"}
        own |= {"GRACE_SECONDS": "0.1", "WORKER_SLOTS": "1", "SERVICE_TOKEN": SECRET}
        variables = {**self.nodes.variables, **{f"DGX_MUSIC_{name}": value for name, value in own.items()}, **settings}
        done = await asyncio.to_thread(self.shell.run, "ray", *arguments, "--json", status=status, **variables)
        return [json.loads(line) for line in done.stdout.splitlines()]

    async def up(self, *arguments: str, **settings: str) -> dict[str, dict[str, Any]]:
        """Runs `dgx-music ray up`; returns the servers by their names."""
        started = await self.run("up", "--port", self.port, *arguments, **settings)
        return {server["name"]: server for server in started}

    async def start_job(self) -> tuple[str, psutil.Process]:
        """Creates a generation. Returns its id and the server that has it, stopped in the middle."""
        generation_id = await self.services.create("house", SECONDS, model_name="sketch", sample_rate_hz=32_000)
        claimed = await self.services.wait_until(
            generation_id, lambda generation: generation.stage == pb.GENERATION_STAGE_GENERATING
        )
        server = psutil.Process(int(claimed.worker_id.split("-")[-2]))
        server.suspend()
        return generation_id, server

    async def attempts_until_completed(self, generation_id: str) -> int:
        """Waits until the generation has a file; returns how many attempts that took."""
        return (await self.services.wait_until_completed(generation_id)).attempt


def actor_of(server: psutil.Process) -> psutil.Process:
    """The process of Ray that has started the server."""
    actor = server.parent()
    assert actor is not None
    assert "ServiceActor" in " ".join(actor.cmdline())
    return actor


async def resume_when_told_to_end(server: psutil.Process) -> None:
    """Waits until SIGTERM waits for a server that is stopped, and lets it go on."""
    async with asyncio.timeout(60):
        while not pending_signals(server) & 1 << signal.SIGTERM - 1:  # noqa: ASYNC110  # The kernel tells nobody.
            await asyncio.sleep(0.05)
    server.resume()
    await wait_until_ended(server)


def pending_signals(process: psutil.Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["ShdPnd"], 16)


async def wait_until_ended(*processes: psutil.Process) -> None:
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 60)
    assert alive == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with ray_nodes() as nodes:
        running = Deployment(tmp_path_factory.mktemp("ray") / "data", nodes)
        try:
            yield running
        finally:
            await running.services.close()


async def test_generations_outlive_the_death_of_actors_servers_and_a_node(deployment: Deployment) -> None:
    assert await deployment.run("status", status=1) == []
    servers = await deployment.up("--with", "storage", "--with", "export", "--with", "gateway")
    assert {name: server["state"] for name, server in servers.items()} == dict.fromkeys(
        ("storage", "export", *WORKERS, "gateway"), "serving"
    )
    assert {servers[name]["node"] for name in WORKERS} == {"127.0.0.1", "127.0.0.2"}
    assert {psutil.Process(servers[name]["pid"]).environ()["CUDA_VISIBLE_DEVICES"] for name in WORKERS} == {"0"}
    assert await deployment.up() == servers, "it is not the same the second time"

    # The actor is killed, and with it its server, which is stopped.
    first, server = await deployment.start_job()
    actor_of(server).kill()
    await wait_until_ended(server)
    assert await deployment.attempts_until_completed(first) == 2

    # The server is killed, and with it its actor, which Ray starts again.
    second, server = await deployment.start_job()
    actor = actor_of(server)
    server.kill()
    await wait_until_ended(actor)
    assert await deployment.attempts_until_completed(second) == 2

    servers = await deployment.up()
    assert [servers[name]["restarts"] for name in WORKERS] != [0, 0]

    # The node of one worker dies. Both have a generation, so one of them goes on elsewhere.
    jobs = [await deployment.start_job(), await deployment.start_job()]
    deployment.nodes.kill_second()
    lost = {server["pid"] for server in servers.values() if server["node"] == "127.0.0.2"}
    [dead] = [server for _, server in jobs if server.pid in lost]
    [alive] = [server for _, server in jobs if server.pid not in lost]
    await wait_until_ended(dead)
    alive.resume()
    for generation_id, _ in jobs:
        await deployment.attempts_until_completed(generation_id)
    on_cpu = ("--gpus-per-worker", "0")
    servers = await deployment.up(*on_cpu, "--workers", "2")  # The other node has one GPU, but room for both.
    assert {server["node"] for server in servers.values()} == {"127.0.0.1"}
    assert all(server["state"] == "serving" for server in servers.values())

    # Servers that are told to end hand their generations back: the leases of those would last for an hour.
    long_lease = {"DGX_MUSIC_LEASE_SECONDS": "3600"}
    servers = await deployment.up(*on_cpu, "--workers", "2", **long_lease)
    jobs = [await deployment.start_job(), await deployment.start_job()]
    [(first, stays)] = [job for job in jobs if job[1].pid == servers["generation-0"]["pid"]]
    [(second, ends)] = [job for job in jobs if job[1].pid == servers["generation-1"]["pid"]]
    actor_of(stays).terminate()  # As `ray stop` does.
    await resume_when_told_to_end(stays)
    await deployment.attempts_until_completed(first)
    scaling = asyncio.create_task(deployment.up(*on_cpu, "--workers", "1", **long_lease))
    await resume_when_told_to_end(ends)
    await scaling
    await deployment.attempts_until_completed(second)

    running = [psutil.Process(server["pid"]) for server in await deployment.run("status")]
    await deployment.run("down")
    await wait_until_ended(*running)
    assert await deployment.run("status", status=1) == []
    assert deployment.services.problems() == []
    assert not [path for path in deployment.nodes.logs.rglob("*") if path.is_file() and SECRET in read(path)]


def read(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")
