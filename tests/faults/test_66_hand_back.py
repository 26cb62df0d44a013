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
        DGX_MUSIC_LEASE_SECONDS="6",  # On a busy machine, a step may take a second.
    ) as services:
        yield services


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(services: ToneProcesses) -> pb.Generation:
    await services.start("generation")
    done = await services.wait_until_completed(await services.create(seconds=SECONDS, **MUSICGEN))
    await services.kill("generation")
    return done


def samples_sha256(generation: pb.Generation) -> str:
    return str(dict(generation.metadata)["pcm_sha256"])


async def start_midway(services: ToneProcesses, failpoint: str = "", **settings: str) -> str:
    """Returns a generation that a worker is generating, with some audio at export, and does so for seconds yet."""
    await services.start("generation", module=PACED, DGX_MUSIC_FAILPOINT=failpoint, **settings)
    generation_id = await services.create(seconds=SECONDS, **MUSICGEN)
    await services.wait_until(generation_id, lambda generation: generation.progress > 0.2)
    return generation_id


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
    generation_id = await start_midway(services, DGX_MUSIC_DEVICES="cpu,cpu")  # Two engine processes.
    listening = asyncio.create_task(listen(services, generation_id))
    assert await services.kill("generation", signal.SIGTERM) == 0
    waiting = await services.get(generation_id)
    assert waiting.state == pb.GENERATION_STATE_PENDING
    assert services.spools_of(generation_id) == [f"{generation_id}.1.json", f"{generation_id}.1.pcm.part"]
    await services.start("generation")
    done = await services.wait_until_completed(generation_id)
    assert done.attempt >= 2
    assert samples_sha256(done) == samples_sha256(undisturbed)
    assert await listening == samples_sha256(undisturbed)
    assert '"export_resumed"' in services.running["generation"].log()
    await services.kill("generation")


async def test_more_important_generation_takes_its_place(services: ToneProcesses, undisturbed: pb.Generation) -> None:
    generation_id = await start_midway(services)
    listening = asyncio.create_task(listen(services, generation_id))
    urgent = await services.create(seconds=0.5, **MUSICGEN, priority=10)
    first = await services.wait_until_completed(urgent)
    done = await services.wait_until_completed(generation_id)
    assert done.attempt >= 2
    assert samples_sha256(done) == samples_sha256(undisturbed)
    assert first.completed_at.ToNanoseconds() < done.completed_at.ToNanoseconds()
    assert await listening == samples_sha256(undisturbed)
    await services.kill("generation")


@pytest.mark.parametrize("point", ["before_suspend", "before_fail"])
async def test_worker_is_killed_on_the_way(services: ToneProcesses, undisturbed: pb.Generation, point: str) -> None:
    generation_id = await start_midway(services, f"generation.{point}:kill")
    assert await services.kill("generation", signal.SIGTERM) == -signal.SIGKILL
    await services.start("generation")
    done = await services.wait_until_completed(generation_id)
    assert done.attempt >= 2
    assert samples_sha256(done) == samples_sha256(undisturbed)
    assert services.problems() == []
    await services.kill("generation")


@pytest.mark.parametrize("point", ["before_suspend", "after_suspend"])
async def test_export_is_killed_on_the_way(services: ToneProcesses, undisturbed: pb.Generation, point: str) -> None:
    await services.kill("export")
    await services.start("export", DGX_MUSIC_FAILPOINT=f"export.{point}:kill")
    generation_id = await start_midway(services)
    assert await services.kill("generation", signal.SIGTERM) == 0
    assert await services.running.pop("export").wait() == -signal.SIGKILL
    await services.start("export")
    await services.start("generation")
    done = await services.wait_until_completed(generation_id)
    assert done.attempt >= 2
    assert samples_sha256(done) == samples_sha256(undisturbed)
    assert services.problems() == []
    await services.kill("generation")


async def test_all_services_are_killed_while_it_waits(services: ToneProcesses, undisturbed: pb.Generation) -> None:
    generation_id = await start_midway(services)
    assert await services.kill("generation", signal.SIGTERM) == 0
    for name in ("storage", "export"):
        await services.kill(name)
    await services.start("storage", "export", "generation")
    done = await services.wait_until_completed(generation_id)
    assert done.attempt >= 2
    assert samples_sha256(done) == samples_sha256(undisturbed)
    assert services.spools_of(generation_id) == [f"{generation_id}.1.pcm"], "it went on with the samples kept"
    await services.kill("generation")


async def test_worker_is_killed_after_it_went_on(services: ToneProcesses, undisturbed: pb.Generation) -> None:
    """The third attempt goes on from the checkpoint of the first, and from its samples."""
    generation_id = await start_midway(services)
    assert await services.kill("generation", signal.SIGTERM) == 0
    await services.start("generation", DGX_MUSIC_FAILPOINT="generation.before_chunk:kill@4")
    assert await services.running.pop("generation").wait() == -signal.SIGKILL
    await services.start("generation")
    done = await services.wait_until_completed(generation_id)
    assert done.attempt >= 3
    assert samples_sha256(done) == samples_sha256(undisturbed)
    assert services.spools_of(generation_id) == [f"{generation_id}.1.pcm"]
    assert services.problems() == []
    await services.kill("generation")
