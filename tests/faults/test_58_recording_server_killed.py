"""Of several export servers, one has the samples that are being received: listeners hear it through any gateway, go on
at the next one when it or their gateway is killed, and what it keeps is resumed and deleted there."""

from __future__ import annotations

import hashlib
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dgx_music import AsyncClient
from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE
from dgx_music.client.async_generation import AsyncGeneration
from dgx_music.errors import GenerationFailed
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.background_listener import BackgroundListener as Listener
from tests.support.command_line import DGX_MUSIC, environment
from tests.support.many_hosts import ManyHosts, many_hosts
from tests.support.processes import process

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
        await hosts.start(name, DGX_MUSIC_FAILPOINT="export.before_mastering:raise")
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


async def test_command_that_plays_goes_on_when_its_gateway_is_killed(hosts: ManyHosts) -> None:
    env = environment(DGX_MUSIC_GATEWAY_ADDRESS=hosts.together("gateway"))
    command = [DGX_MUSIC, "generate", "a calm piano", "-d", f"{SECONDS:g}", "--stdout", "--raw"]
    async with process(*command, env=env, stdout=PIPE, stderr=PIPE) as playing:
        assert playing.stdout is not None
        assert playing.stderr is not None
        pcm = await playing.stdout.readexactly(HEARD_FRAMES * 8)
        for name in hosts.of_kind("gateway"):
            await hosts.kill(name)
            await hosts.start(name)
            pcm += await playing.stdout.readexactly(HEARD_FRAMES * 8)
        pcm += await playing.stdout.read()
        said = (await playing.stderr.read()).decode()
        assert await playing.wait() == 0, said
    [generation] = (await hosts.music.ListGenerations(storage.ListGenerationsRequest(), timeout=60)).generations
    assert sha256(pcm) == generation.metadata["pcm_sha256"]


async def test_stream_is_not_cut_while_storage_is_away(hosts: ManyHosts, client: AsyncClient) -> None:
    generation = await submit(client)
    request = export.StreamAudioRequest(generation_id=generation.id)
    pcm, has_restarted = b"", False
    async for part in hosts.music.StreamAudio(request, timeout=60):
        pcm += part.chunk.pcm
        if len(pcm) >= HEARD_FRAMES * 8 and not has_restarted:
            has_restarted = True
            await hosts.kill("storage-1")
            await hosts.start("storage-1")
    await generation.wait()
    assert has_restarted
    assert sha256(pcm) == generation.metadata["pcm_sha256"]
