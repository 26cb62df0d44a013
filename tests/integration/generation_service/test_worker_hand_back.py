"""Jobs that are handed back before they are complete, and go on from where they were: in the same spool, with the
samples and the figures of an undisturbed one, and without a gap for those who listen."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from generation_service.engine.engine import Engine
from generation_service.engine.sequence import Sequence
from generation_service.worker import job, worker
from storage_service.domain.sharing import preemption
from tests.support.export_client import AudioListener
from tests.support.service_stack import ServiceStack, is_pending_after
from tests.support.tone_model import BLOCK_FRAMES, WAIT_SECONDS, ResumingToneModel, ToneModel

HIGH = {"prompt": "high", "priority": 5}


class UntilSuspended:
    """A step that lasts until the engine is asked to suspend a request; the next time it lasts no time."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.is_armed = True

    def __call__(self) -> None:
        if self.is_armed:
            assert self.asked.wait(WAIT_SECONDS)
            self.is_armed = False
            self.asked.clear()


@pytest.fixture
def until_suspended(monkeypatch: pytest.MonkeyPatch) -> UntilSuspended:
    step = UntilSuspended()
    suspend = Engine.suspend

    def suspend_and_tell(engine: Engine, sequence: Sequence) -> None:
        suspend(engine, sequence)
        step.asked.set()

    monkeypatch.setattr(Engine, "suspend", suspend_and_tell)
    monkeypatch.setattr(preemption, "HEADS_SECONDS", 0.05)
    for module in (job, worker):  # However busy the machine is.
        monkeypatch.setattr(module, "SUSPEND_SECONDS", WAIT_SECONDS)
    return step


async def start(stack: ServiceStack, model: ToneModel | None = None) -> None:
    """Starts the servers, with one place in the batch; whoever waits for it takes that of a lower priority at once."""
    stack.model = ResumingToneModel() if model is None else model
    stack.storage_settings = {"preempt_after_seconds": 0.01}
    await stack.start("storage", "export", "generation", max_batch_size=1)


def figures(generation: pb.Generation) -> dict[str, object]:
    """Returns what is known of the audio, without what depends on the number of the attempt."""
    return {
        key: value for key, value in dict(generation.metadata).items() if key not in ("file_sha256", "audio_attempt")
    }


async def listen(stack: ServiceStack, generation_id: str) -> AudioListener:
    listener = AudioListener(stack.export, generation_id, 0, export_pb2.StreamAudioRequest().level, 60.0)
    await listener.open()
    return listener


async def test_preempted_job_goes_on_where_it_was(stack, until_suspended):
    await start(stack)
    undisturbed = await stack.wait_until_ended(await stack.create())
    stack.model.at["low", 3] = until_suspended
    low = await stack.create("low", seconds=0.5)
    listener = await listen(stack, low)
    await listener.read_until(BLOCK_FRAMES)
    high = await stack.create(**HIGH)
    waiting = await stack.wait_until(low, is_pending_after(1))
    assert waiting.error_message == f"handed back for generation {high}, which has a higher priority"
    assert (await stack.wait_until_ended(high)).state == pb.GENERATION_STATE_COMPLETED
    done = await stack.wait_until_ended(low)
    assert (done.state, done.attempt, done.max_attempts) == (pb.GENERATION_STATE_COMPLETED, 2, 4)
    assert stack.model.prefilled == ["a", "low", "high", "low"]
    assert stack.model.resumed_from == [0, 0, 0, 3 * BLOCK_FRAMES]
    assert figures(done) == figures(undisturbed)
    heard = await listener.read_rest()
    assert len(heard) == 4000
    assert [path.name for path in stack.spools() if low in path.name] == [f"{low}.1.pcm"]


async def test_job_is_not_preempted_for_its_equal(stack, until_suspended):
    await start(stack)
    first = await stack.create("a", priority=5)
    second = await stack.create(**HIGH)
    done = [await stack.wait_until_ended(job) for job in (first, second)]
    assert [(job.state, job.attempt) for job in done] == [(pb.GENERATION_STATE_COMPLETED, 1)] * 2


@pytest.mark.slow
async def test_job_goes_on_after_a_restart_of_all_servers(stack, until_suspended):
    await start(stack)
    undisturbed = await stack.wait_until_ended(await stack.create())
    stack.model.at["low", 3] = until_suspended
    generation_id = await stack.create("low", seconds=0.5)
    await stack.wait_until(generation_id, lambda generation: generation.progress > 0)
    for name in ("generation", "export", "storage"):
        await stack.stop(name)
    await stack.start("storage", "export", "generation")
    done = await stack.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)
    assert stack.model.resumed_from == [0, 0, 3 * BLOCK_FRAMES]
    assert figures(done) == figures(undisturbed)


async def change_version(stack: ServiceStack) -> None:
    stack.model.info = replace(stack.model.info, version="8")


async def lose_spools(stack: ServiceStack) -> None:
    await stack.stop("export")
    for path in stack.spools():
        path.unlink()
    await stack.start("export")


async def damage_spools(stack: ServiceStack) -> None:
    for path in stack.spools():
        if path.name.endswith(".part"):
            with path.open("r+b") as file:
                file.write(bytes(64))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "goes_on"),
    [(change_version, False), (lose_spools, True), (damage_spools, True)],
    ids=["another version", "lost spools", "damaged spools"],
)
async def test_job_completes_whatever_is_lost(stack, until_suspended, fault, goes_on):
    await start(stack)
    undisturbed = await stack.wait_until_ended(await stack.create())
    stack.model.at["low", 3] = until_suspended
    generation_id = await stack.create("low", seconds=0.5)
    await stack.wait_until(generation_id, lambda generation: generation.progress > 0)
    await stack.stop("generation")
    await fault(stack)
    await stack.start("generation")
    done = await stack.wait_until_ended(generation_id)
    assert done.state == pb.GENERATION_STATE_COMPLETED
    assert stack.model.resumed_from[2:] == [3 * BLOCK_FRAMES if goes_on else 0] * (done.attempt - 1)
    assert figures(done)["pcm_sha256"] == figures(undisturbed)["pcm_sha256"]


async def test_model_without_checkpoints_starts_at_the_beginning_and_only_once(stack, until_suspended):
    await start(stack, ToneModel())
    stack.model.at["low", 3] = until_suspended
    low = await stack.create("low", seconds=0.5)
    await stack.wait_until(low, lambda generation: generation.progress > 0)
    first = await stack.create(**HIGH)
    await stack.wait_until(low, is_pending_after(1))
    assert (await stack.wait_until_ended(first)).state == pb.GENERATION_STATE_COMPLETED
    second = await stack.create(**HIGH)
    done = await stack.wait_until_ended(low)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)
    assert (await stack.wait_until_ended(second)).state == pb.GENERATION_STATE_COMPLETED


async def test_cancelled_while_it_waits(stack, until_suspended):
    """Its listener gets to know, and nothing is kept of it."""
    await start(stack)
    stack.model.at["low", 3] = until_suspended
    low = await stack.create("low", seconds=0.5)
    listener = await listen(stack, low)
    await listener.read_until(BLOCK_FRAMES)
    await stack.stop("generation")
    await stack.wait_until(low, is_pending_after(1))
    await stack.storage.CancelGeneration(pb.CancelGenerationRequest(id=low), timeout=60)
    await stack.export.DeleteFile(export_pb2.DeleteFileRequest(generation_id=low), timeout=60)
    with pytest.raises(Exception, match="aborted"):
        await asyncio.wait_for(listener.read_rest(), 60)
    assert stack.spools() == []


@pytest.mark.slow
async def test_resumed_job_is_handed_back_again(stack, until_suspended):
    await start(stack)
    undisturbed = await stack.wait_until_ended(await stack.create())
    stack.model.at["low", 2] = until_suspended
    generation_id = await stack.create("low", seconds=0.5)
    for attempt in (1, 2):  # The second one yields two blocks in its first step.
        await stack.wait_until(
            generation_id,
            lambda generation, number=attempt: generation.attempt == number and generation.progress > 0,
        )
        await stack.stop("generation")
        until_suspended.is_armed = attempt == 1
        await stack.start("generation")
    done = await stack.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 3)
    assert figures(done) == figures(undisturbed)
    assert np.all(np.diff(stack.model.resumed_from[1:]) > 0)


@pytest.mark.slow
async def test_sketch_goes_on(stack):
    await start(stack)
    undisturbed = await stack.wait_until_ended(await stack.create_sketch(seconds=120.0))
    generation_id = await stack.create_sketch(seconds=120.0)
    await stack.wait_until(generation_id, lambda generation: generation.progress > 0)
    await stack.stop("generation")
    assert f"{generation_id}.1.json" in [path.name for path in stack.spools()]
    await stack.start("generation")
    done = await stack.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)
    assert figures(done) == figures(undisturbed)
