"""Fault 66: a worker hands a generation of MusicGen back, and it or a service that it needs is killed meanwhile. The
generation is completed with the samples of an undisturbed one, and whoever listens hears them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dgx_music.export.v1 import export_pb2
from dgx_music.pcm import PcmReader
from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.tone_processes import ToneProcesses, tone_processes

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from tests.support.checkpoints import write_checkpoint, write_t5

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
SECONDS = 8.0
PACED = "tests.support.paced_musicgen"
MUSICGEN = {"prompt": "calm piano", "model_name": "tiny", "sample_rate_hz": 32_000, "channels": 1, "seed": 7}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToneProcesses]:
    """Storage and export. Workers are real ones, which run MusicGen."""
    folder = tmp_path_factory.mktemp("services")
    write_checkpoint(folder / "data" / "models" / "tiny")
    write_t5(folder / "hf")
    hub = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    worker = {"DGX_MUSIC_DEVICES": "cpu", "DGX_MUSIC_GRACE_SECONDS": "0.1", "DGX_MUSIC_WORKER_SLOTS": "1"}
    async with tone_processes(
        folder / "data",
        "storage",
        "export",
        **hub,
        **worker,
        DGX_MUSIC_PREEMPT_AFTER_SECONDS="0.1",
        DGX_MUSIC_LEASE_SECONDS="4",  # On a busy machine, a step may take a second.
    ) as services:
        yield services


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(services: ToneProcesses) -> pb.Generation:
    """By a worker with two engine processes, which goes on running."""
    await start_worker(services, DGX_MUSIC_DEVICES="cpu,cpu")
    return await services.wait_until_completed(await services.create(seconds=SECONDS, **MUSICGEN))


async def start_worker(services: ToneProcesses, failpoint: str = "", **settings: str) -> None:
    """Starts a worker in which a generation takes seconds. To load MusicGen takes as long: what one test has left is
    used by the next."""
    await services.start("generation", module=PACED, DGX_MUSIC_FAILPOINT=failpoint, **settings)


def samples_sha256(generation: pb.Generation) -> str:
    return str(dict(generation.metadata)["pcm_sha256"])


async def create_midway(services: ToneProcesses) -> str:
    """Returns a generation that the worker is generating, with some audio at export."""
    generation_id = await services.create(seconds=SECONDS, **MUSICGEN)
    await wait_until_midway(services, generation_id)
    return generation_id


async def wait_until_midway(services: ToneProcesses, generation_id: str, attempt: int = 1) -> None:
    await services.wait_until(generation_id, lambda one: one.attempt >= attempt and one.progress > 0.2 * attempt)


async def listen(services: ToneProcesses, generation_id: str) -> str:
    """Returns the SHA-256 of all samples, in a single call."""
    request = export_pb2.StreamAudioRequest(generation_id=generation_id, level="AUDIO_LEVEL_LIVE", wait_seconds=60)
    call = services.export.StreamAudio(request, timeout=120)
    reader = PcmReader((await call.read()).header)
    while (part := await call.read()).WhichOneof("part") == "chunk":
        reader.accept(part.chunk)
    reader.finish(part.end)
    return reader.sha256


async def test_restarted_worker_goes_on_and_listeners_hear_no_gap(
    services: ToneProcesses, undisturbed: pb.Generation
) -> None:
    generation_id = await create_midway(services)
    listening = asyncio.create_task(listen(services, generation_id))
    assert await services.kill("generation", signal.SIGTERM) == 0
    waiting = await services.get(generation_id)
    assert waiting.state == pb.GENERATION_STATE_PENDING
    assert services.spools_of(generation_id) == [f"{generation_id}.1.json", f"{generation_id}.1.pcm.part"]
    await start_worker(services)
    done = await services.wait_until_completed(generation_id)
    assert done.attempt >= 2
    assert samples_sha256(done) == samples_sha256(undisturbed)
    assert await listening == samples_sha256(undisturbed)
    assert '"export_resumed"' in services.running["generation"].log()


async def test_more_important_generation_takes_its_place(services: ToneProcesses, undisturbed: pb.Generation) -> None:
    generation_id = await create_midway(services)
    listening = asyncio.create_task(listen(services, generation_id))
    urgent = await services.create(seconds=0.5, **MUSICGEN, priority=10)
    first = await services.wait_until_completed(urgent)
    done = await services.wait_until_completed(generation_id)
    assert done.attempt >= 2
    assert samples_sha256(done) == samples_sha256(undisturbed)
    assert first.completed_at.ToNanoseconds() < done.completed_at.ToNanoseconds()
    assert await listening == samples_sha256(undisturbed)


async def test_export_is_killed_on_the_way(services: ToneProcesses, undisturbed: pb.Generation) -> None:
    await services.kill("export")
    await services.start("export", DGX_MUSIC_FAILPOINT="export.before_suspend:kill")
    generation_id = await create_midway(services)
    for attempt, armed in ((2, "export.after_suspend:kill"), (3, "")):
        assert await services.kill("generation", signal.SIGTERM) == 0
        assert await services.running.pop("export").wait() == -signal.SIGKILL
        await services.start("export", DGX_MUSIC_FAILPOINT=armed)
        await start_worker(services)
        await wait_until_midway(services, generation_id, attempt)
    done = await services.wait_until_completed(generation_id)
    assert samples_sha256(done) == samples_sha256(undisturbed)
    assert services.problems() == []


async def test_everything_is_killed_on_the_way(services: ToneProcesses, undisturbed: pb.Generation) -> None:
    """All services while it waits; the second worker, which has gone on from the checkpoint, before export keeps its
    samples; and the third one before storage has its checkpoint."""
    generation_id = await create_midway(services)
    assert await services.kill("generation", signal.SIGTERM) == 0
    for name in ("storage", "export"):
        await services.kill(name)
    await services.start("storage", "export")
    for attempt, point in ((2, "before_suspend"), (3, "before_fail")):
        await start_worker(services, f"generation.{point}:kill")
        await wait_until_midway(services, generation_id, attempt)
        assert await services.kill("generation", signal.SIGTERM) == -signal.SIGKILL
    await start_worker(services)
    done = await services.wait_until_completed(generation_id)
    assert done.attempt >= 4
    assert samples_sha256(done) == samples_sha256(undisturbed)
    assert services.spools_of(generation_id) == [f"{generation_id}.1.pcm"], "it went on with the samples kept"
    assert services.problems() == []
