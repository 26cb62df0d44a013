"""The processes of a soak, with a proxy between any two, and a supervisor that starts again what dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from dgx_music.channel import connect
from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceStub
from tests.soak.schedule import LEASE_SECONDS, LINKS, SERVICES
from tests.soak.violation import Violation
from tests.support.cut_connection import Forwarder, forwarding_to
from tests.support.service_processes import ServiceProcess, ServiceProcesses
from tests.support.stepped_clock import SteppedClock, build_library

if TYPE_CHECKING:
    from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceAsyncStub

SETTINGS = {
    "DGX_MUSIC_LEASE_SECONDS": str(LEASE_SECONDS),
    "DGX_MUSIC_LEASE_SWEEP_SECONDS": "1",
    "DGX_MUSIC_RENEW_INTERVAL_SECONDS": "1",
    "DGX_MUSIC_GRACE_SECONDS": "3",
    "DGX_MUSIC_MAX_ATTEMPTS": "20",
    "DGX_MUSIC_SPOOL_KEEP_SECONDS": "4",
    "DGX_MUSIC_FAILED_SPOOL_KEEP_SECONDS": "30",
    "DGX_MUSIC_DATABASE_TIMEOUT_SECONDS": "60",
    "DGX_MUSIC_MAX_CONCURRENT_CALLS": "64",
    "DGX_MUSIC_PRELOAD": "none",
}
"""Short leases, so that a job of a dead worker does not wait long; as many attempts as there are faults."""
MODULES = {"generation": "tests.soak.paced_generation"}
END_SECONDS = 60.0
"""How long a process may take to end after SIGTERM."""
START_ATTEMPTS = 20
DISK_BYTES = 2 << 30


class Cluster:
    """The processes, by default five services on one data directory."""

    def __init__(
        self,
        services: ServiceProcesses,
        links: Mapping[str, Forwarder],
        clocks: Mapping[str, SteppedClock],
        *,
        has_disk: bool = False,
        names: Sequence[str] = SERVICES,
        engines: Mapping[str, Callable[[float], None]] | None = None,
        address: str = "",
    ) -> None:
        self.services, self.links, self.clocks = services, links, clocks
        self.names = names
        """In the order in which they may start."""
        self.has_disk = has_disk
        """Whether the data directory is a small disk of its own."""
        self.engines = engines or {}
        """Name of what others have made and the services need → kills it, and starts it again after so many seconds."""
        self.locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Service → held while a fault happens to its process."""
        self.violations: list[Violation] = []
        self.starts = 0
        self._failpoints: dict[str, str] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._channel: grpc.aio.Channel = connect(address or links["client>gateway"].address)
        self.music: MusicServiceAsyncStub = MusicServiceStub(self._channel)  # type: ignore[assignment]

    async def start(self, name: str, failpoint: str = "") -> None:
        """Starts a process and waits until it serves; tries again if it ends before, as a supervisor does."""
        settings = {"DGX_MUSIC_FAILPOINT": failpoint}
        for link, forwarder in self.links.items():
            caller, callee = link.split(">")
            if caller == name:
                settings[f"DGX_MUSIC_{callee.upper()}_ADDRESS"] = forwarder.address
        if name in self.clocks:
            settings |= self.clocks[name].environment
        module = MODULES.get(name.partition("-")[0])
        for attempt in range(1, START_ATTEMPTS + 1):
            self.starts += 1
            try:
                await self.services.start(name, module=module, **settings)
                break
            except AssertionError as error:
                self.services.running.pop(name)
                if attempt == START_ATTEMPTS:
                    raise Violation("did not start", name, str(error)[-2000:]) from error
                await asyncio.sleep(0.5)
        self._failpoints[name] = failpoint
        watcher = asyncio.create_task(self._watch(name, self.services.running[name]))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def stop(self, name: str, number: signal.Signals) -> None:
        """Ends a process; it must end cleanly after SIGTERM. The caller holds its lock."""
        try:
            status = await asyncio.wait_for(self.services.kill(name, number), END_SECONDS)
        except TimeoutError:
            self.violations.append(Violation("did not end after SIGTERM", name))
            raise
        if number is signal.SIGTERM and status not in (0, -signal.SIGKILL if ":kill" in self._failpoints[name] else 0):
            self.violations.append(Violation("unclean end after SIGTERM", name, f"status {status}"))

    async def restore(self) -> None:
        """Ends all faults, and runs all services without a failpoint."""
        for forwarder in self.links.values():
            forwarder.restore()
        for clock in self.clocks.values():
            clock.set_step(0)
        for name in self.names:
            async with self.locks[name]:
                if name in self.services.running and self._failpoints[name]:
                    await self.stop(name, signal.SIGTERM)
                if name not in self.services.running:
                    await self.start(name)

    async def close(self) -> None:
        """Ends all processes by SIGTERM, first those that call others."""
        await self._channel.close()
        for name in reversed(self.names):
            async with self.locks[name]:
                if name in self.services.running:
                    await self.stop(name, signal.SIGTERM)
        await asyncio.gather(*self._watchers)

    async def _watch(self, name: str, process: ServiceProcess) -> None:
        status = await process.wait()
        if self.services.running.get(name) is not process:
            return  # It was stopped.
        if status != -signal.SIGKILL or ":kill" not in self._failpoints[name]:
            log = "\n".join(process.log().splitlines()[-20:])
            self.violations.append(Violation("a process died", name, f"status {status}: {log}"))
        async with self.locks[name]:
            if self.services.running.get(name) is process:
                del self.services.running[name]
                await self.start(name)


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Makes the folder a disk of its own where this process may; yields whether it is one."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    is_mounted = os.geteuid() == 0 and not subprocess.run(command, capture_output=True, check=False).returncode
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@asynccontextmanager
async def running_cluster(data_dir: Path, clocked: set[str], has_disk: bool, **settings: str) -> AsyncIterator[Cluster]:
    """Runs all services while the block runs. Those in `clocked` have clocks that can be stepped, if that is possible
    on this machine. What still runs at the end of the block is killed."""
    services = ServiceProcesses(data_dir, **{**SETTINGS, **settings})
    library = build_library(data_dir.parent) if clocked else None
    clocks = {name: SteppedClock(library, data_dir.parent / f"{name}.clock") for name in clocked if library}
    async with AsyncExitStack() as stack:
        links = {}
        for link in LINKS:
            address = services.address(link.partition(">")[2])
            links[link] = await stack.enter_async_context(forwarding_to(address))
        cluster = Cluster(services, links, clocks, has_disk=has_disk)
        stack.push_async_callback(services.close)
        await cluster.start("storage")  # It creates the database.
        await asyncio.gather(*(cluster.start(name) for name in SERVICES if name != "storage"))
        yield cluster
