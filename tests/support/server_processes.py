"""Runs `dgx-music serve` as one process, or as four of which each serves one service, and gives their addresses."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.command_line import DGX_MUSIC, environment
from tests.support.processes import free_ports, process, wait_until_serving

SERVICES = ("storage", "export", "generation", "gateway")


@dataclass
class Servers:
    """Servers that run."""

    addresses: dict[str, str]
    """Service → its address. A single process serves the gateway's alone."""
    processes: dict[str, asyncio.subprocess.Process]
    """Service → its process; "" → the single process."""

    def memory_bytes(self, name: str) -> int:
        """Returns the resident memory of a process now."""
        for line in Path(f"/proc/{self.processes[name].pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process has ended")

    def cpu_seconds(self, name: str) -> float:
        """Returns the processor time that a process has used so far."""
        fields = Path(f"/proc/{self.processes[name].pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def serving(
    data_dir: Path, *services: str, generation_module: str | None = None, **settings: str
) -> AsyncIterator[Servers]:
    """Runs one process for each of the `services`, or without any a single one for all, while the block runs.

    `generation_module` is run as the generation service, instead of the command.
    """
    ports = free_ports(len(SERVICES))
    addresses = {name: f"127.0.0.1:{port}" for name, port in zip(SERVICES, ports, strict=True)}
    variables = {f"DGX_MUSIC_{name.upper()}_ADDRESS": address for name, address in addresses.items()}
    env = environment(DGX_MUSIC_DATA_DIR=str(data_dir), **variables, **settings)
    running: dict[str, asyncio.subprocess.Process] = {}
    async with AsyncExitStack() as stack:
        drains = await stack.enter_async_context(asyncio.TaskGroup())
        for name in services or ("",):
            command: list[str | Path] = [DGX_MUSIC, "serve", *([name] if name else [])]
            if name == "generation" and generation_module is not None:
                command = [sys.executable, "-m", generation_module]
            server = process(*command, env=env, stderr=asyncio.subprocess.PIPE)
            running[name] = await stack.enter_async_context(server)
            await wait_until_serving(running[name])
            drains.create_task(_discard(running[name]))
        yield Servers(addresses, running)


async def _discard(server: asyncio.subprocess.Process) -> None:
    """Reads the log, so that the server is never blocked by a full pipe."""
    assert server.stderr is not None
    while await server.stderr.read(1 << 16):
        pass
