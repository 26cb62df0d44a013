"""`StudioProcesses`: `dgx-music serve` and `dgx-music studio` beside it as real processes, of which a test may kill and
restart each, and a gRPC client of the first."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dgx_music import AsyncClient
from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE, AudioLevel
from dgx_music.export.v1.export_pb2 import DownloadRequest, StreamAudioRequest
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.command_line import DGX_MUSIC, environment
from tests.support.processes import free_ports

if TYPE_CHECKING:
    from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceAsyncStub

SECONDS = 60.0
"""Limit for a start, and for a call."""
SERVER, STUDIO = "serve", "studio"


class StudioProcesses:
    """A server and a Studio that calls it. Both keep their addresses when they are started again."""

    def __init__(self, data_dir: Path, gateway_address: str = "", **settings: str) -> None:
        """`gateway_address` is that of a gateway that runs already, beside which only the Studio is started.
        `settings` are further environment variables of both."""
        server_port, studio_port = free_ports(2)
        self.data_dir = data_dir
        self.gateway_address = gateway_address or f"127.0.0.1:{server_port}"
        self.studio_address = f"127.0.0.1:{studio_port}"
        self.settings = settings
        self.seen_gateway_address = self.gateway_address
        """Where the Studio calls the gateway: a proxy's address, say."""
        self._running: dict[str, tuple[Process, asyncio.Task[None]]] = {}
        self._logs: dict[str, list[bytes]] = {SERVER: [], STUDIO: []}
        self._client: AsyncClient | None = None

    @property
    def url(self) -> str:
        return f"{'https' if 'DGX_MUSIC_TLS_CERTIFICATE' in self.settings else 'http'}://{self.studio_address}"

    async def start(self, *names: str) -> None:
        """Starts the server, the Studio, or by default both; returns when they serve."""
        for name in names or (SERVER, STUDIO):
            gateway = self.gateway_address if name == SERVER else self.seen_gateway_address
            env = environment(DGX_MUSIC_DATA_DIR=str(self.data_dir), DGX_MUSIC_GATEWAY_ADDRESS=gateway, **self.settings)
            options = ["--no-open", "--listen", self.studio_address] if name == STUDIO else []
            process = await asyncio.create_subprocess_exec(
                DGX_MUSIC, name, *options, env=env, stdout=asyncio.subprocess.DEVNULL, stderr=PIPE, limit=1 << 26
            )
            serving = asyncio.Event()
            self._running[name] = process, asyncio.create_task(self._read_log(name, process, serving))
            await asyncio.wait_for(serving.wait(), SECONDS)
            assert process.returncode is None, self.log(name)

    async def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Ends a process by a signal; returns its exit status."""
        process, reader = self._running.pop(name)
        with suppress(ProcessLookupError):
            process.send_signal(number)
        status = await process.wait()
        await reader
        return status

    def pid(self, name: str) -> int:
        return self._running[name][0].pid

    def log(self, name: str) -> str:
        """What a process has logged so far."""
        return b"".join(self._logs[name]).decode(errors="replace")

    @property
    def client(self) -> AsyncClient:
        """The Python client, on the server."""
        if self._client is None:
            self._client = AsyncClient(self.gateway_address)
        return self._client

    @property
    def music(self) -> MusicServiceAsyncStub:
        return self.client.music

    async def create(self, prompt: str, seconds: float = 2.0, **fields: object) -> str:
        """Queues a generation by gRPC; returns its id."""
        request = storage.CreateGenerationRequest(prompt=prompt, duration_seconds=seconds, **fields)  # type: ignore[arg-type]
        return (await self.music.CreateGeneration(request, timeout=SECONDS)).generation.id

    async def generate(self, prompt: str, seconds: float = 2.0, **fields: object) -> str:
        """Like `create`, and waits until it is COMPLETED."""
        generation_id = await self.create(prompt, seconds, **fields)
        finished = await self.wait_until_final(generation_id)
        assert finished.state == storage.GENERATION_STATE_COMPLETED, finished
        return generation_id

    async def get(self, generation_id: str) -> storage.Generation:
        request = storage.GetGenerationRequest(id=generation_id)
        return (await self.music.GetGeneration(request, timeout=SECONDS)).generation

    async def newest(self) -> storage.Generation:
        return (await self.newest_ones())[0]

    async def newest_ones(self) -> list[storage.Generation]:
        """Returns the first page of the generations, the newest first."""
        listed = await self.music.ListGenerations(storage.ListGenerationsRequest(), timeout=SECONDS)
        return list(listed.generations)

    async def wait_until(self, generation_id: str, is_reached: Callable[[storage.Generation], bool]) -> None:
        """Returns when a version of the generation is what is asked for."""
        watch = self.music.WatchGeneration(storage.WatchGenerationRequest(id=generation_id), timeout=2 * SECONDS)
        async for change in watch:
            if is_reached(change.generation):
                watch.cancel()
                return
        raise AssertionError("the generation has ended before")

    async def wait_until_final(self, generation_id: str) -> storage.Generation:
        """Returns the generation in its final state."""
        request = storage.WatchGenerationRequest(id=generation_id)
        versions = [change.generation async for change in self.music.WatchGeneration(request, timeout=2 * SECONDS)]
        return versions[-1]

    async def samples(
        self, generation_id: str, level: AudioLevel.ValueType = AUDIO_LEVEL_LIVE, start_frame: int = 0
    ) -> bytes:
        """Returns the samples, float32 and interleaved, as a gRPC client hears them."""
        request = StreamAudioRequest(generation_id=generation_id, level=level, start_frame=start_frame)
        parts = self.music.StreamAudio(request, timeout=2 * SECONDS)
        return b"".join([part.chunk.pcm async for part in parts])

    async def file(self, generation_id: str) -> bytes:
        """Returns the bytes of the finished file."""
        parts = self.music.Download(DownloadRequest(generation_id=generation_id), timeout=SECONDS)
        return b"".join([part.data async for part in parts])

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        for name in list(self._running):
            await self.kill(name, signal.SIGTERM if name == STUDIO else signal.SIGKILL)

    async def _read_log(self, name: str, process: Process, serving: asyncio.Event) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            self._logs[name].append(line)
            if b'"serving"' in line or b"the Studio is at" in line:
                serving.set()
        serving.set()  # It has ended: whoever waits looks why.


@asynccontextmanager
async def studio_processes(
    data_dir: Path, gateway_address: str = "", **settings: str
) -> AsyncIterator[StudioProcesses]:
    """Runs a server and a Studio, or only a Studio that calls another gateway, while the block runs."""
    data_dir.mkdir(exist_ok=True)
    processes = StudioProcesses(data_dir, gateway_address, **settings)
    try:
        await processes.start(*([STUDIO] if gateway_address else []))
        yield processes
    finally:
        await processes.close()
