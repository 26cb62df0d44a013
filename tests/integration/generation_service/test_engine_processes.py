"""Two engine processes behind one pool: who gets which request, and what the end of one does to the other."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from dgx_music.errors import Unavailable
from dgx_music.storage.v1 import storage_pb2
from generation_service.config import GenerationSettings
from generation_service.engine.request_handle import GenerationHandle
from generation_service.engine.sequence import Stage
from generation_service.models.base import GenerationParameters, TooLarge
from generation_service.processes import engine_process
from generation_service.processes.engine_client import EngineState, RequestOrigin
from generation_service.processes.engine_pool import EnginePool
from generation_service.processes.pool_builder import build_pool
from tests.support.engine_calls import read
from tests.support.service_stack import ServiceStack, server_process
from tests.support.tone_engine_process import EXECUTION, MODULE, Fifo, build_catalog
from tests.support.tone_model import BLOCK_FRAMES, RATE_HZ, tone, tone_parameters

pytestmark = pytest.mark.asyncio(loop_scope="module")
WAIT_SECONDS = 60.0
ENDING_SECONDS = 10.0
"""How long the kernel may take to end a process."""


class Pool:
    """A pool of two processes that run the tone model."""

    def __init__(self, pool: EnginePool) -> None:
        self.pool = pool
        self.info = pool.catalog.get("tone").describe()
        self._devices: dict[GenerationHandle, str] = {}
        self._changed = asyncio.Event()
        pool.on_capacity_changed(self._changed.set)

    async def submit(self, parameters: GenerationParameters, origin: RequestOrigin | None = None) -> GenerationHandle:
        handle = await self.pool.submit(self.info, parameters, origin)
        [self._devices[handle]] = [
            request.engine.device.name for request in self.pool._requests if request.handle is handle
        ]
        return handle

    async def wait_until(self, *states: EngineState) -> None:
        """Waits until the engines have these states."""
        async with asyncio.timeout(WAIT_SECONDS):
            while tuple(report.state for report in self.pool.reports()) != states:
                await self._changed.wait()
                self._changed.clear()

    def pid(self, device: str) -> int:
        [pid] = [report.pid for report in self.pool.reports() if report.device.name == device]
        return pid

    def device_of(self, handle: GenerationHandle) -> str:
        return self._devices[handle]


SERVING, FAILED = EngineState.SERVING, EngineState.FAILED
COMPLETED = storage_pb2.GENERATION_STATE_COMPLETED


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Pool]:
    """The pool of all tests but the last ones. They replace its processes, and one stops it in the end."""
    settings = GenerationSettings(devices="cpu,cpu", buffer_seconds=0.5, preload="tone")
    pool = Pool(build_pool(settings, build_catalog(), module=MODULE))
    await pool.pool.start()
    try:
        await pool.wait_until(SERVING, SERVING)
        assert all(pool.info in report.models for report in pool.pool.reports())
        yield pool
    finally:
        await pool.pool.stop()


@pytest.fixture
def fifo(tmp_path: Path) -> Fifo:
    return Fifo(tmp_path / "fifo")


async def test_samples_metadata_and_flow_are_those_of_an_engine_in_this_process(shared):
    parameters = tone_parameters("a", 20.5)
    handle = await shared.submit(parameters)
    await handle.wait_until_started()
    assert handle.metadata == {"bpm": 120.0, "key": "A minor"}
    assert handle.stage is Stage.GENERATING
    assert np.array_equal(await read(handle), tone(parameters))
    assert (handle.frames_delivered, handle.progress) == (parameters.frames, 1.0)


async def test_progress_that_a_model_reports_arrives(shared, fifo):
    handle = await shared.submit(tone_parameters(f"work:{fifo.path}", 3))
    await handle.wait_until_started()
    await shared.pool.refresh()
    assert handle.progress == 0.25
    assert [request.progress for request in shared.pool.requests()] == [0.25]
    await fifo.release()
    await read(handle)


async def test_timings_and_totals_of_a_process_arrive(shared):
    await shared.pool.refresh()
    before = sum(report.status.total_audio_seconds for report in shared.pool.reports())
    ended = asyncio.Event()
    handle = await shared.submit(tone_parameters("timed", 6))
    handle.when_finished(lambda error: ended.set())
    await read(handle)
    await ended.wait()
    timings = handle.sequence.timings
    times = (timings.submitted_at, timings.admitted_at, timings.prefill_at, timings.started_at, timings.first_block_at)
    assert list(times) == sorted(times)
    assert timings.first_block_at <= timings.ended_at <= time.monotonic()
    assert (timings.steps, timings.batch_rows) == (6, 6)
    await shared.pool.refresh()
    reports = shared.pool.reports()
    assert sum(report.status.total_audio_seconds for report in reports) - before == pytest.approx(
        6 * BLOCK_FRAMES / RATE_HZ
    )
    assert all(sum(report.status.step_seconds.counts) == report.status.batch_sizes.sum for report in reports)


async def test_prompt_audio_arrives_and_errors_return_as_their_own_class(shared):
    clip = np.ones((RATE_HZ, 2), np.float32)
    handle = await shared.submit(GenerationParameters("large", 800, 1, prompt_audio=clip))
    with pytest.raises(TooLarge, match="ask for at most 12 s") as caught:
        await handle.wait_until_started()
    assert (caught.value.reason, caught.value.field) == ("KV_MEMORY", "duration_seconds")
    assert caught.value.metadata == {"field": "duration_seconds"}


async def test_least_loaded_engine_gets_the_next_request(shared, tmp_path):
    fifos = [Fifo(tmp_path / name) for name in "abcd"]
    lengths = (40, 10, 10, 10)
    handles = [
        await shared.submit(tone_parameters(fifo.prompt, blocks)) for fifo, blocks in zip(fifos, lengths, strict=True)
    ]
    long, *short = map(shared.device_of, handles)
    assert short == [*short[:1] * 3]
    assert long != short[0]
    assert [request.device.name for request in shared.pool.requests()] == [long, *short]
    for fifo in fifos:
        await fifo.release()
    for handle, fifo, blocks in zip(handles, fifos, lengths, strict=True):
        assert np.array_equal(await read(handle), tone(tone_parameters(fifo.prompt, blocks)))
    assert shared.pool.requests() == []


async def test_equal_requests_take_turns(shared, tmp_path):
    fifos = [Fifo(tmp_path / name) for name in "abcd"]
    handles = [await shared.submit(tone_parameters(fifo.prompt, 10)) for fifo in fifos]
    assert sorted(map(shared.device_of, handles)) == ["cpu:0", "cpu:0", "cpu:1", "cpu:1"]
    for fifo in fifos:
        await fifo.release()
    await asyncio.gather(*map(read, handles))
    alone = []
    for _ in range(2):  # One after another: both engines are idle.
        alone.append(await shared.submit(tone_parameters("alone", 1)))
        await read(alone[-1])
    assert sorted(map(shared.device_of, alone)) == ["cpu:0", "cpu:1"]


async def test_requests_that_come_at_once_are_spread(shared, fifo):
    """Although none of them has been accepted when the last one is routed."""
    long = await shared.submit(tone_parameters(fifo.prompt, 40))
    short = await asyncio.gather(*(shared.submit(tone_parameters("short", 10)) for _ in range(8)))
    devices = list(map(shared.device_of, short))
    assert devices.count(shared.device_of(long)) == 2
    await fifo.release()
    await asyncio.gather(*map(read, [long, *short]))


async def test_slow_reader_pauses_only_itself(shared):
    slow = await shared.submit(tone_parameters("slow", 100))
    await slow.wait_until_started()
    others = [await shared.submit(tone_parameters(name, 100)) for name in "abc"]
    await asyncio.gather(*map(read, others))
    await shared.pool.refresh()
    assert slow.frames_delivered == 0.5 * RATE_HZ
    assert len(await anext(slow)) == BLOCK_FRAMES  # Makes room for one more block.
    assert len(await read(slow)) == 99 * BLOCK_FRAMES


async def test_cancelled_request_leaves_its_batch(shared):
    handle = await shared.submit(tone_parameters("a", 1000))
    await handle.wait_until_started()
    handle.cancel()
    await shared.pool.load(shared.info)  # Between two steps, and so after the step that it leaves at.
    assert sum(report.status.running + report.status.waiting for report in shared.pool.reports()) == 0


async def test_request_is_listed_while_it_runs(shared, fifo):
    handle = await shared.submit(tone_parameters(fifo.prompt, 10), RequestOrigin(generation_id="id"))
    await anext(handle)
    await anext(handle)
    [request] = shared.pool.requests()
    assert (request.origin.generation_id, request.info.name, request.stage) == ("id", "tone", Stage.GENERATING)
    assert (request.frames, request.expected_frames) == (2 * BLOCK_FRAMES, 10 * BLOCK_FRAMES)
    await fifo.release()
    await read(handle)


async def test_load_and_unload_reach_every_engine(shared):
    await shared.pool.load(shared.info)
    assert all(shared.info in report.models for report in shared.pool.reports())
    assert shared.pool.execution(shared.info) == EXECUTION
    await shared.pool.unload("tone")
    assert not shared.pool.has_loaded("tone")
    assert not shared.pool.is_loaded(shared.info)


async def test_signals_of_the_terminal_are_for_the_service(shared):
    pid = shared.pid("cpu:0")
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert os.getpgid(pid) != os.getpgid(0)
    await asyncio.gather(*[read(await shared.submit(tone_parameters("a", 2))) for _ in range(2)])
    assert shared.pid("cpu:0") == pid


async def test_killed_process_takes_only_its_own_requests_with_it_and_is_replaced(shared, fifo, tmp_path):
    other_fifo = Fifo(tmp_path / "other")
    victim = await shared.submit(tone_parameters(fifo.prompt, 10))
    other = await shared.submit(tone_parameters(other_fifo.prompt, 10))
    await victim.wait_until_started()
    device = shared.device_of(victim)
    assert shared.pool.capacity == 16
    os.kill(shared.pid(device), signal.SIGKILL)
    with pytest.raises(Unavailable, match="the engine process failed: it was killed by SIGKILL; retry") as caught:
        await read(victim)
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("ENGINE_LOST", 1.0)
    [failed] = [report for report in shared.pool.reports() if report.device.name == device]
    assert (failed.state, failed.pid) == (FAILED, None)
    assert failed.problem == "its process failed: it was killed by SIGKILL"
    assert shared.pool.capacity == 8
    shared.pool.check()  # The other one serves.
    next_one = await shared.submit(tone_parameters("next", 3))
    assert shared.device_of(next_one) != device
    await other_fifo.release()
    assert np.array_equal(await read(other), tone(tone_parameters(other_fifo.prompt, 10)))
    await read(next_one)
    await shared.wait_until(SERVING, SERVING)
    assert {report.device.name for report in shared.pool.reports() if report.restarts == 1} == {device}
    again = [await shared.submit(tone_parameters("again", 2)) for _ in range(2)]
    assert {shared.device_of(handle) for handle in again} == {"cpu:0", "cpu:1"}
    await asyncio.gather(*map(read, again))


async def test_process_that_stops_responding_gets_no_requests_until_it_does(shared, monkeypatch):
    monkeypatch.setattr(engine_process, "QUIET_SECONDS", 1.2)
    await shared.pool.refresh()  # From here on, silence is counted by this limit.
    pid = shared.pid("cpu:0")
    os.kill(pid, signal.SIGSTOP)
    try:
        await shared.wait_until(FAILED, SERVING)
        report = shared.pool.reports()[0]
        assert report.problem == "its process has not responded for 1.2 s"
        assert report.status.steps_per_second == 0
        for _ in range(2):
            handle = await shared.submit(tone_parameters("a", 1))
            assert shared.device_of(handle) == "cpu:1"
            await read(handle)
    finally:
        os.kill(pid, signal.SIGCONT)
    await shared.wait_until(SERVING, SERVING)
    assert shared.pid("cpu:0") == pid


@pytest.mark.slow
async def test_hung_process_is_killed_and_replaced(shared):
    restarts = sum(report.restarts for report in shared.pool.reports())
    handle = await shared.submit(tone_parameters("hang", 10))
    with pytest.raises(Unavailable, match=r"it hung: a model call has been running for more than 0\.2 s"):
        await read(handle)
    await shared.wait_until(SERVING, SERVING)
    assert sum(report.restarts for report in shared.pool.reports()) == restarts + 1


@pytest.mark.slow
async def test_process_that_loses_its_device_ends_and_without_any_the_pool_is_unavailable(shared):
    handles = [await shared.submit(tone_parameters("lose", 10)) for _ in range(2)]
    for handle in handles:
        with pytest.raises(Unavailable, match="an illegal memory access"):
            await read(handle)
    await shared.wait_until(FAILED, FAILED)
    with pytest.raises(Unavailable, match=r"cpu:0 does not .* illegal memory access.*cpu:1 does not") as caught:
        shared.pool.check()
    assert caught.value.retry_after_seconds == 1.0
    with pytest.raises(Unavailable, match="illegal memory access"):
        await shared.submit(tone_parameters("a", 1))
    await shared.wait_until(SERVING, SERVING)
    assert all(shared.info in report.models for report in shared.pool.reports())  # It is preloaded.


async def test_stopped_pool_ends_its_processes_and_requests(shared):
    handle = await shared.submit(tone_parameters("a", 1000))
    await handle.wait_until_started()
    pids = [report.pid for report in shared.pool.reports()]
    await shared.pool.stop()
    with pytest.raises(Unavailable, match="the server is shutting down"):
        await read(handle)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_request_may_come_before_the_processes_exist():
    pool = Pool(build_pool(GenerationSettings(devices="cpu,cpu"), build_catalog(), module=MODULE))
    await pool.pool.start()
    try:
        assert [report.pid for report in pool.pool.reports()] == [None, None]
        parameters = tone_parameters("early", 1.0)
        assert np.array_equal(await read(await pool.submit(parameters)), tone(parameters))
    finally:
        await pool.pool.stop()


async def test_pool_may_be_stopped_before_its_processes_exist():
    pool = Pool(build_pool(GenerationSettings(devices="cpu,cpu"), build_catalog(), module=MODULE))
    await pool.pool.start()
    early = asyncio.create_task(pool.submit(tone_parameters("early", 1.0)))
    await pool.pool.stop()
    with pytest.raises(Unavailable):
        await early


async def test_job_of_a_killed_process_is_completed_by_the_next_one(tmp_path):
    stack = ServiceStack(tmp_path)
    (tmp_path / "fifos").mkdir()
    fifos = [Fifo(tmp_path / "fifos" / name) for name in "ab"]
    try:
        await stack.start("storage", "export")
        await stack.start("generation", devices="cpu,cpu", max_batch_size=1, engine_module=MODULE)
        ids = [await stack.create(fifo.prompt, seconds=1.0) for fifo in fifos]
        for generation_id in ids:
            await stack.wait_until(generation_id, is_generating)
        pool = stack.generation.engine
        victim = next(request for request in pool.requests() if request.origin.generation_id == ids[0])
        [pid] = [report.pid for report in pool.reports() if report.device == victim.device]
        assert {request.device for request in pool.requests()} == {report.device for report in pool.reports()}
        os.kill(pid, signal.SIGKILL)
        again = await stack.wait_until(ids[0], lambda generation: generation.attempt == 2)
        assert again.max_attempts == 4  # The lost attempt does not count.
        # It was not claimed before there was a place for it again: the other process is full.
        assert (sum(report.restarts for report in pool.reports()), pool.capacity) == (1, 2)
        for fifo in fifos:
            await fifo.release()
        done = [await stack.wait_until_ended(generation_id) for generation_id in ids]
        assert [(one.state, one.attempt) for one in done] == [(COMPLETED, 2), (COMPLETED, 1)]
        await stack.generation.check()
    finally:
        await stack.stop_all()


def is_generating(generation: storage_pb2.Generation) -> bool:
    return generation.stage == storage_pb2.GENERATION_STAGE_GENERATING


async def test_processes_end_with_a_service_that_is_killed(tmp_path):
    stack = ServiceStack(tmp_path)
    try:
        server = server_process(
            stack, "generation_service.rpc.server", devices="cpu,cpu", stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(WAIT_SECONDS), server as service:
            started, serving = [], 0
            while serving < 2:
                event = json.loads(await service.stderr.readline())
                serving += event["event"] == "engine_process_serving"
                if event["event"] == "engine_process_started":
                    started.append(os.pidfd_open(event["pid"]))
            signal.pidfd_send_signal(started[0], signal.SIGSTOP)  # It can't notice anything by itself.
            service.kill()
            for process in started:
                ended = await asyncio.to_thread(select.select, [process], [], [], ENDING_SECONDS)
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                os.close(process)
                assert ended[0]  # A pidfd is readable once its process has ended.
    finally:
        await stack.stop_all()
