"""`ManyHosts`: several servers of each kind as real processes, as on many hosts: each with a data directory of its own,
one Postgres and one S3 bucket for all, and clients that know all gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dgx_music.channel import connect
from tests.support.health import SERVING, wait_for_health
from tests.support.service_processes import SERVICES, STUBS, ServiceProcesses

if TYPE_CHECKING:
    from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceAsyncStub

COUNTS = {"storage": 2, "export": 2, "generation": 2, "gateway": 2}
MODULE = "tests.soak.paced_generation"
"""Of the workers, whose sketch model takes time for each step, as models do."""


class ManyHosts(ServiceProcesses):
    """Servers named "storage-1", "storage-2" and so on. Each finds all others of a kind by one address."""

    def __init__(self, folder: Path, counts: Mapping[str, int] = COUNTS, **settings: str) -> None:
        super().__init__(folder, **settings)
        self.names = [f"{kind}-{number}" for kind in SERVICES for number in range(1, counts[kind] + 1)]
        self.neighbours = {kind: self.together(kind) for kind in SERVICES}
        self.gateways = connect(self.neighbours["gateway"])
        """A channel to all gateways."""

    def of_kind(self, kind: str) -> list[str]:
        return [name for name in self.names if name.startswith(kind)]

    def together(self, kind: str) -> str:
        """The address of all servers of a kind."""
        return f"ipv4:{','.join(self.address(name) for name in self.of_kind(kind))}"

    async def start(
        self, *names: str, module: str | None = None, prefix: tuple[str, ...] = (), **settings: str
    ) -> None:
        for name in names:
            own = {"DGX_MUSIC_DATA_DIR": str(self.data_dir / name)}
            if name.startswith("export"):
                own["DGX_MUSIC_EXPORT_ADVERTISED_ADDRESS"] = self.address(name)
            if name.startswith("generation"):
                module = module or MODULE
            await super().start(name, module=module, prefix=prefix, **{**own, **settings})

    async def start_all(self) -> None:
        """Starts the first storage server, which creates the tables, and then all others at once. Returns when all
        gateways are SERVING, and so everything that they need."""
        first, *others = self.names
        await self.start(first)
        await asyncio.gather(*(self.start(name) for name in others))
        for name in self.of_kind("gateway"):
            await wait_for_health(self.channel(name), SERVING)

    @property
    def music(self) -> MusicServiceAsyncStub:
        """Of any gateway."""
        return STUBS["gateway"](self.gateways)  # type: ignore[no-any-return, return-value]

    def server_at(self, address: str) -> str:
        """The name of the server with this address."""
        return next(name for name in self.names if self.address(name) == address)

    async def close(self) -> None:
        await self.gateways.close()
        await super().close()


@asynccontextmanager
async def many_hosts(folder: Path, counts: Mapping[str, int] = COUNTS, **settings: str) -> AsyncIterator[ManyHosts]:
    """Starts all servers, and kills them with the block."""
    folder.mkdir(exist_ok=True)
    hosts = ManyHosts(folder, counts, **settings)
    try:
        await hosts.start_all()
        yield hosts
    finally:
        await hosts.close()
