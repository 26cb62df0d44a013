"""The batch scripts of deploy/slurm as plain processes, with the variables that Slurm sets and a `scontrol` that writes
down what it is asked for: workers find the services and follow them, and jobs whose time is up are queued again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dgx_music import AsyncClient
from dgx_music.credentials import Credentials
from tests.support.command_line import DGX_MUSIC, environment
from tests.support.health import wait_until_healthy

FOLDER = Path(__file__).parents[2] / "deploy/slurm"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))
SECONDS = 150.0


class Job:
    """A batch script that runs, and its log."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._seen: list[bytes] = []

    async def wait_for(self, *texts: bytes) -> None:
        """Reads the log up to a line that has all of the texts."""
        assert self.process.stderr is not None
        while line := await asyncio.wait_for(self.process.stderr.readline(), SECONDS):
            self._seen.append(line)
            if all(text in line for text in texts):
                return
        raise AssertionError(b"".join(self._seen).decode())

    async def time_is_up(self) -> int | None:
        """What Slurm does with --signal=B:USR1@…: the script itself gets the signal. Returns its status."""
        self.process.send_signal(signal.SIGUSR1)
        return await self._end()

    async def cancel(self) -> int | None:
        """What Slurm does on scancel and on preemption: all processes of the job get SIGTERM."""
        os.killpg(self.process.pid, signal.SIGTERM)
        return await self._end()

    async def _end(self) -> int | None:
        _, log = await asyncio.wait_for(self.process.communicate(), SECONDS)
        assert b"Traceback" not in log, log.decode()
        # None was ended by a second signal: each has drained.
        assert log.count(b'"draining"') == log.count(b'"stopped"') > 0, log.decode()
        return self.process.returncode


class Slurm:
    """Runs batch scripts in a folder, which is the shared file system."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "shared"
        self._requests = folder / "requests"
        self._bin = folder / "bin"
        self._bin.mkdir()
        (self._bin / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {self._requests}\n')
        (self._bin / "scontrol").chmod(0o755)
        self._started: list[Process] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            for process in self._started:  # Each leads a group: its servers end with it.
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)

    async def submit(self, script: str, **variables: str) -> Job:
        path = f"{self._bin}:{DGX_MUSIC.parent}:{os.environ['PATH']}"
        env = environment(PATH=path, DGX_MUSIC_HOME=str(self.home), DGX_MUSIC_HOST="127.0.0.1", **variables)
        process = await asyncio.create_subprocess_exec(
            "bash", FOLDER / script, env=env, stderr=PIPE, start_new_session=True, limit=1 << 24
        )
        self._started.append(process)
        return Job(process)

    def services(self) -> dict[str, str]:
        """What the services have written down for workers and clients."""
        lines = (self.home / "services.env").read_text().splitlines()
        return dict(line.removeprefix("export ").split("=", 1) for line in lines)

    def requests(self) -> list[str]:
        return self._requests.read_text().splitlines() if self._requests.exists() else []


async def submit_services(slurm: Slurm, job_id: int) -> Job:
    """Returns when all four of them are SERVING."""
    job = await slurm.submit("dgx-music.sbatch", SLURM_JOB_ID=str(job_id))
    for _ in range(4):  # It has written down where.
        await job.wait_for(b'"serving"', b"127.0.0.1:")
    token = (slurm.home / "service-token").read_text().strip()
    services = slurm.services()
    credentials = Credentials(token=token, ca=services["DGX_MUSIC_TLS_CA"])
    for name, address in services.items():
        if name.endswith("_ADDRESS"):
            await wait_until_healthy(address, credentials)
    return job


async def generate(slurm: Slurm, count: int) -> set[str]:
    """Makes pieces with the token of the services; returns the workers that generated them."""
    services = slurm.services()
    token = (slurm.home / "service-token").read_text().strip()
    address, authority = services["DGX_MUSIC_GATEWAY_ADDRESS"], services["DGX_MUSIC_TLS_CA"]
    async with AsyncClient(address, token=token, tls_ca=authority) as client:
        made = await asyncio.gather(*(client.generate(f"techno {number}", duration=20.0) for number in range(count)))
        return {(await client.get(str(one.id))).message.worker_id for one in made}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scripts_can_be_read_and_are_queued_again(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    options = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --signal=B:USR1@120", "#SBATCH --requeue", "#SBATCH --open-mode=append"} <= set(options)
    body = script.read_text().split("set -eu", 1)[1]
    assert "#SBATCH" not in body  # Slurm stops to read options at the first command.


@pytest.mark.slow
async def test_services_and_workers(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path)
    job_id = random.randint(1, 3000)
    async with slurm.running():
        task = {"SLURM_JOB_ID": "78", "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3"}
        worker = await slurm.submit("workers.sbatch", **task)  # Before there are services.
        services = await submit_services(slurm, job_id)
        await worker.wait_for(b'"serving"', b"unix:")
        workers: set[str] = set()
        while len(workers) < 2:  # Both claim, and take turns by chance.
            workers |= await generate(slurm, 8)
        # The time of the services is up; they go on as another job, elsewhere.
        assert await services.time_is_up() == 0
        assert slurm.requests() == [f"requeue {job_id}"]
        services = await submit_services(slurm, job_id + 1)
        await worker.wait_for(b'"stopped"')
        await worker.wait_for(b'"serving"', b"unix:")
        again: set[str] = set()
        while len(again) < 2:
            again |= await generate(slurm, 8)
        assert not again & workers
        assert await worker.time_is_up() == 0
        assert slurm.requests()[1:] == ["requeue 77_3"]
        # A worker that can't serve has failed, with its own status.
        worker = await slurm.submit("workers.sbatch", **task, DGX_MUSIC_DEVICES="nonsense")
        assert await worker.process.wait() == 2
        # scancel: what is cancelled is not queued again.
        assert await services.cancel() == 0
        assert len(slurm.requests()) == 2
    for secret in ("service-token", "tls/server.key"):
        assert (slurm.home / secret).stat().st_mode & 0o077 == 0
