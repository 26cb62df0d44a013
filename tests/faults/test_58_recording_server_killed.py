"""Of several export servers, one has the samples that are being received: listeners hear it through any gateway, go on
at the next one when it or their gateway is killed, and what it keeps is resumed and deleted there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dgx_music import AsyncClient
from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE
from dgx_music.client.async_generation import AsyncGeneration
from dgx_music.errors import GenerationFailed
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.many_hosts import ManyHosts, many_hosts

pytestmark = pytest.mark.slow

RATE_HZ, SECONDS = 32_000, 12.0
HEARD_FRAMES = 2 * RATE_HZ
COUNTS = {"storage": 1, "export": 2, "generation": 1, "gateway": 2}
SETTINGS = {
    "DGX_MUSIC_LEASE_SECONDS": "4",
    "DGX_MUSIC_LEASE_SWEEP_SECONDS": "0.5",
    "DGX_MUSIC_RENEW_INTERVAL_SECONDS": "0.5",
    "DGX_MUSIC_PRELOAD": "none",
}


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[ManyHosts]:
    async with many_hosts(tmp_path / "hosts", COUNTS, **SETTINGS) as hosts:
        yield hosts


@pytest.fixture
async def client(hosts: ManyHosts) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(hosts.together("gateway")) as client:
        yield client


class Listener:
    """Listens in the background, and keeps what it hears."""

    def __init__(self, generation: AsyncGeneration, start_frame: int = 0) -> None:
        self.pcm, self.start_frame = bytearray(), start_frame
        self._heard = asyncio.Event()
        self._wanted = 0
        self._task = asyncio.create_task(self._listen(generation))

    async def _listen(self, generation: AsyncGeneration) -> None:
        async with generation.stream(start_frame=self.start_frame) as stream:
            async for chunk in stream:
                self.pcm += chunk.pcm
                if len(self.pcm) >= self._wanted:
                    self._heard.set()

    async def hear(self, frames: int) -> None:
        """Returns when it has heard so many frames in all."""
        self._heard.clear()
        self._wanted = frames * 8
        if len(self.pcm) < self._wanted:
            waiting = asyncio.create_task(self._heard.wait())
            await asyncio.wait({waiting, self._task}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        assert len(self.pcm) >= self._wanted

    async def end(self) -> bytes:
        """Returns what it has heard, at the end of the stream."""
        async with asyncio.timeout(60):
            await self._task
        return bytes(self.pcm)


async def address_of(hosts: ManyHosts, generation: AsyncGeneration, other_than: str = "") -> str:
    """Returns the address of the export server that receives it, as soon as storage has another than this one."""
    watch = hosts.music.WatchGeneration(storage.WatchGenerationRequest(id=generation.id), timeout=60)
    async for change in watch:
        if change.generation.export_address not in ("", other_than):
            return str(change.generation.export_address)
    raise AssertionError("it ended before")


async def read(hosts: ManyHosts, generation: AsyncGeneration) -> storage.Generation:
    request = storage.GetGenerationRequest(id=generation.id)
    return (await hosts.music.GetGeneration(request, timeout=60)).generation


async def live_samples(hosts: ManyHosts, generation_id: str) -> bytes:
    request = export.StreamAudioRequest(generation_id=generation_id, level=AUDIO_LEVEL_LIVE)
    parts = [part async for part in hosts.music.StreamAudio(request, timeout=60)]
    assert parts[-1].HasField("end")
    return b"".join(part.chunk.pcm for part in parts)


def spools(hosts: ManyHosts) -> dict[str, list[str]]:
    """The files with samples, by the name of the server that has them."""
    folders = {name: hosts.data_dir / name / "spool" for name in hosts.of_kind("export")}
    found = {name: sorted(path.name for path in folder.iterdir()) for name, folder in folders.items()}
    return {name: files for name, files in found.items() if files}


def sha256(pcm: bytes) -> str:
    return hashlib.sha256(pcm).hexdigest()


async def submit(client: AsyncClient, seconds: float = SECONDS) -> AsyncGeneration:
    return await client.submit("a calm piano", model="sketch", duration=seconds, seed=3)


async def test_listeners_go_on_at_the_next_server_when_the_recording_one_is_killed(
    hosts: ManyHosts, client: AsyncClient
) -> None:
    generation = await submit(client)
    early = Listener(generation)  # Before any server has a sample.
    address = await address_of(hosts, generation)
    await early.hear(HEARD_FRAMES)
    late = Listener(generation, start_frame=RATE_HZ)
    await late.hear(RATE_HZ)
    await hosts.kill(hosts.server_at(address))
    assert await address_of(hosts, generation, other_than=address) != address
    heard, rest = await early.end(), await late.end()
    await generation.wait()
    assert (await read(hosts, generation)).attempt == 2
    assert sha256(heard) == generation.metadata["pcm_sha256"]
    assert heard[RATE_HZ * 8 :] == rest
    # Afterwards, the samples as generated are still where they were received.
    assert await live_samples(hosts, generation.id) == heard


async def test_listeners_go_on_when_their_gateway_is_killed(hosts: ManyHosts, client: AsyncClient) -> None:
    generation = await submit(client)
    listeners = [Listener(generation), Listener(generation)]
    for kilometre, name in enumerate(hosts.of_kind("gateway"), 1):
        for listener in listeners:
            await listener.hear(kilometre * HEARD_FRAMES)
        await hosts.kill(name)
        await hosts.start(name)
    heard = [await listener.end() for listener in listeners]
    await generation.wait()
    assert (await read(hosts, generation)).attempt == 1
    assert {sha256(pcm) for pcm in heard} == {generation.metadata["pcm_sha256"]}


async def test_attempt_is_resumed_and_deleted_at_the_server_that_has_the_samples(
    hosts: ManyHosts, client: AsyncClient
) -> None:
    for name in hosts.of_kind("export"):
        await hosts.kill(name)
        await hosts.start(name, DGX_MUSIC_FAILPOINT="export.before_mastering:EIO")
    short = [await client.submit("a calm piano", model="sketch", duration=0.5, seed=seed) for seed in range(4)]
    for generation in short:
        with pytest.raises(GenerationFailed):
            await generation.wait()
    # Two more attempts each had all samples at hand; the last one did not rely on that server.
    log = hosts.running["generation-1"].log()
    assert {(await read(hosts, generation)).attempt for generation in short} == {3}
    for generation in short[:3]:
        await generation.delete()
    assert {file.partition(".")[0] for files in spools(hosts).values() for file in files} == {short[3].id}
    # Whichever server has them, it makes the file when it can again.
    for name in hosts.of_kind("export"):
        await hosts.kill(name)
        await hosts.start(name)
    await (await short[3].retry()).wait()
    assert short[3].state == "completed"
    log = hosts.running["generation-1"].log()[len(log) :]
    assert log.count('"export_resumed"') == 1
