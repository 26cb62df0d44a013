"""Fault 12: SIGTERM with live streams and running jobs. The process drains within its grace period and exits with 0; a
second signal ends it, and its engine processes, at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from dgx_music.export.v1 import export_pb2
from dgx_music.pcm import PcmReader
from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.tone_engine_process import Fifo
from tests.support.tone_model import RATE_HZ
from tests.support.tone_processes import ToneProcesses, tone_processes

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToneProcesses]:
    async with tone_processes(tmp_path_factory.mktemp("services") / "data", "storage", "export") as services:
        yield services


async def test_live_stream_and_its_job_end_within_the_grace_period(services: ToneProcesses, tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "fifo")
    await services.start_worker(DGX_MUSIC_GRACE_SECONDS="60")
    await services.start("gateway", DGX_MUSIC_GRACE_SECONDS="60")
    generation_id = await services.create(fifo.prompt)
    call = services.music.StreamAudio(export_pb2.StreamAudioRequest(generation_id=generation_id), timeout=120)
    reader = PcmReader((await call.read()).header)
    stopping = [services.running.pop(name) for name in ("gateway", "generation")]
    for service in stopping:
        service.process.send_signal(signal.SIGTERM)
        await service.wait_for_event("draining")
    await fifo.release()
    while (part := await call.read()).WhichOneof("part") == "chunk":
        reader.accept(part.chunk)
    reader.finish(part.end)
    assert reader.frames == RATE_HZ
    assert [await service.wait() for service in stopping] == [0, 0]
    assert (await services.wait_until_completed(generation_id)).attempt == 1


async def test_job_that_takes_longer_than_the_grace_period_goes_back(services: ToneProcesses, tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "fifo")
    await services.start_worker(DGX_MUSIC_GRACE_SECONDS="0.5", DGX_MUSIC_DEVICES="cpu,cpu")
    generation_id = await services.create(fifo.prompt)
    await fifo.reached()
    assert await services.kill("generation", signal.SIGTERM) == 0
    waiting = await services.get(generation_id)
    assert (waiting.state, waiting.error_message) == (pb.GENERATION_STATE_PENDING, "the server is shutting down")
    await services.start_worker()
    await fifo.release()
    done = await services.wait_until_completed(generation_id)
    assert (done.attempt, done.max_attempts) == (2, 10)
    await services.kill("generation")


async def test_claim_that_is_answered_while_the_worker_stops_is_handed_back(services: ToneProcesses) -> None:
    await services.start_worker(DGX_MUSIC_LEASE_SECONDS="3600")
    worker, storage = services.running["generation"], services.running["storage"]
    while True:
        await services.wait_until_completed(await services.create())  # Meanwhile, it makes its next claim.
        claims = storage.log().count('"claimed"')
        worker.pause()
        generation_id = await services.create()
        try:
            await asyncio.wait_for(storage.wait_for_event("claimed", claims + 1), 5)
        except TimeoutError:  # It was between two claims.
            worker.resume()
        else:
            break
    worker.process.send_signal(signal.SIGTERM)
    worker.resume()
    assert await services.running.pop("generation").wait() == 0
    waiting = await services.get(generation_id)
    assert (waiting.state, waiting.error_message) == (pb.GENERATION_STATE_PENDING, "the server is shutting down")
    assert (waiting.attempt, waiting.max_attempts) == (1, 10)


async def test_second_signal_ends_the_service_and_its_engine_processes_at_once(
    services: ToneProcesses, tmp_path: Path
) -> None:
    fifo = Fifo(tmp_path / "fifo")
    await services.start_worker(DGX_MUSIC_GRACE_SECONDS="3600", DGX_MUSIC_DEVICES="cpu,cpu")
    generation_id = await services.create(fifo.prompt)
    await fifo.reached()
    worker = services.running["generation"]
    engines = psutil.Process(worker.pid).children(recursive=True)
    worker.process.send_signal(signal.SIGTERM)
    await worker.wait_for_event("draining")
    assert await services.kill("generation", signal.SIGTERM) == 128 + signal.SIGTERM
    assert psutil.wait_procs(engines, timeout=30)[1] == []
    await services.start_worker()
    await fifo.release()
    await services.wait_until_completed(generation_id)
    assert services.problems() == []
