"""Gives clients that do with a server whatever a client can, for as long as there is work: `run_mixed_clients`, for
tests and benchmarks of long life. Each leaves as many generations as it found."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2

from dgx_music import AsyncClient, Client
from dgx_music.client.async_generation import AsyncGeneration
from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound, ServiceError
from dgx_music.export.v1.export_pb2 import DeleteFileRequest
from tests.support.command_line import DGX_MUSIC, environment
from tests.support.processes import free_ports, process, wait_until_serving

AUDIO_SECONDS = 1.0
PROMPTS = 50
"""Different prompts. They are kept when generations are deleted, so more of them would be growth."""
HTTP_CALLERS = 100
"""Different callers over HTTP: more than the connections that `dgx-music http` keeps."""
TIMEOUT_SECONDS = 300.0


class MixedClients:
    """Clients of one gateway, some of which stay, while others come and go."""

    def __init__(self, address: str, folder: Path, seed: int, http_url: str | None = None) -> None:
        self._address, self._folder, self._http_url = address, folder, http_url
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()
        """What was done → how often."""

    @property
    def jobs(self) -> int:
        """Generations that were created."""
        return self.done["job"]

    async def run(self, jobs: int, concurrency: int = 6) -> None:
        """Creates so many generations and does everything with them. Raises what a client sees that is not expected."""
        remaining = iter(range(jobs))
        async with (
            AsyncClient(self._address, client_name="stays", wait_if_busy=60) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(concurrency):
                group.create_task(self._work_through(client, remaining))

    async def _work_through(self, client: AsyncClient, remaining: Iterator[int]) -> None:
        for number in remaining:
            kind = number % len(_KINDS)
            await _KINDS[kind](self, client, number)
            self.done["job"] += 1
            self.done[_KINDS[kind].__name__.strip("_")] += 1

    def _prompt(self, number: int) -> str:
        return f"prompt {number % PROMPTS}"

    async def _submit(self, client: AsyncClient, number: int, seconds: float = AUDIO_SECONDS) -> AsyncGeneration:
        return await client.submit(self._prompt(number), duration=seconds, seed=number, model="sketch")

    async def _listens_live(self, client: AsyncClient, number: int) -> None:
        generation = await self._submit(client, number)
        async with generation.stream() as stream:
            async for _ in stream:
                pass
        await generation.wait(TIMEOUT_SECONDS)
        await generation.delete()

    async def _leaves_early(self, client: AsyncClient, number: int) -> None:
        generation = await self._submit(client, number)
        async with generation.stream() as stream:
            await anext(stream)
        async for _ in generation.watch(TIMEOUT_SECONDS):
            break
        await generation.wait(TIMEOUT_SECONDS)
        await generation.delete()

    async def _cancels(self, client: AsyncClient, number: int) -> None:
        generation = await self._submit(client, number, 30.0)
        if number % 2:
            with suppress(ServiceError):
                async with generation.stream(timeout=TIMEOUT_SECONDS) as stream:
                    await anext(stream)
        with suppress(FailedPrecondition):
            await generation.cancel()
        async for _ in generation.watch(TIMEOUT_SECONDS):
            pass
        while True:
            try:
                return await generation.delete()
            except FailedPrecondition:  # Its worker has not noticed yet, and exports on.
                await asyncio.sleep(0.1)

    async def _works_with_file(self, client: AsyncClient, number: int) -> None:
        generation = await self._submit(client, number)
        await generation.wait(TIMEOUT_SECONDS)
        await generation.rate(1 + number % 5)
        await generation.waveform(100)
        await generation.read()
        path = await generation.save(self._folder / f"{number}.flac")
        path.unlink()
        await generation.delete()

    async def _derives(self, client: AsyncClient, number: int) -> None:
        generation = await self._submit(client, number)
        await generation.wait(TIMEOUT_SECONDS)
        for variation in await generation.variations(2, seed=number):
            await variation.wait(TIMEOUT_SECONDS)
            await variation.delete()
        await generation.lineage()
        await generation.delete()

    async def _comes_and_goes(self, client: AsyncClient, number: int) -> None:
        async with AsyncClient(self._address, client_name=f"caller {number}", wait_if_busy=60) as own:
            generation = await self._submit(own, number)
            await generation.wait(TIMEOUT_SECONDS)
            await generation.delete()

    async def _blocks(self, client: AsyncClient, number: int) -> None:
        def work() -> None:
            with Client(self._address, client_name=f"thread {number}", wait_if_busy=60) as own:
                generation = own.generate(self._prompt(number), duration=AUDIO_SECONDS, timeout=TIMEOUT_SECONDS)
                generation.delete()

        await asyncio.to_thread(work)

    async def _looks_around(self, client: AsyncClient, number: int) -> None:
        generation = await self._submit(client, number)
        async for _ in client.history(limit=20, search=self._prompt(number)):
            pass
        await client.models()
        await generation.wait(TIMEOUT_SECONDS)
        path = await generation.save(self._folder / f"{generation.id}.wav")
        clip = await client.import_clip(path)
        path.unlink()
        async with client.stream(clip.clip_id) as stream:
            async for _ in stream:
                pass
        await client.music.DeleteFile(DeleteFileRequest(generation_id=clip.clip_id), timeout=TIMEOUT_SECONDS)
        await generation.delete()

    async def _is_refused(self, client: AsyncClient, number: int) -> None:
        with suppress(InvalidArgument):
            await client.submit("", duration=AUDIO_SECONDS)
        with suppress(NotFound):
            await client.get(f"0f9b7a3e-0000-4000-8000-{number:012x}")
        with suppress(InvalidArgument, NotFound, FailedPrecondition):
            await client.submit("x", model=f"model {number}")

    async def _calls_over_http(self, client: AsyncClient, number: int) -> None:
        if self._http_url is None:
            return
        headers = {"dgx-music-client": f"http {number % HTTP_CALLERS}"}
        async with httpx2.AsyncClient(base_url=self._http_url, timeout=TIMEOUT_SECONDS, headers=headers) as http:
            body = {"input": self._prompt(number), "model": "sketch", "audio_length": AUDIO_SECONDS}
            if number % 3 == 0:  # Hangs up in the middle.
                async with http.stream("POST", "/v1/audio/generate", json=body) as response:
                    async for _ in response.aiter_bytes():
                        break
            else:
                response = await http.post("/v1/audio/generate", json=body)
                response.raise_for_status()
        async for one in client.history(client=headers["dgx-music-client"], limit=5):
            with suppress(FailedPrecondition, NotFound):
                await one.delete()


_KINDS = (
    MixedClients._listens_live,
    MixedClients._leaves_early,
    MixedClients._cancels,
    MixedClients._works_with_file,
    MixedClients._derives,
    MixedClients._comes_and_goes,
    MixedClients._blocks,
    MixedClients._looks_around,
    MixedClients._is_refused,
    MixedClients._calls_over_http,
)


@asynccontextmanager
async def http_server(gateway_address: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Runs `dgx-music http` and yields its URL and its process."""
    [port] = free_ports(1)
    env = environment(DGX_MUSIC_GATEWAY_ADDRESS=gateway_address, DGX_MUSIC_HTTP_LISTEN=f"127.0.0.1:{port}")
    async with process(DGX_MUSIC, "http", env=env, stderr=asyncio.subprocess.PIPE) as server:
        await wait_until_serving(server)
        drain = asyncio.create_task(_discard(server))
        try:
            yield f"http://127.0.0.1:{port}", server
        finally:
            drain.cancel()


async def _discard(server: asyncio.subprocess.Process) -> None:
    assert server.stderr is not None
    while await server.stderr.read(1 << 16):
        pass
