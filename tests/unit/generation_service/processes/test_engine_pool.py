"""Which engine a pool gives a request to, and what it keeps of it, with engines in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dgx_music.errors import ResourceExhausted, Unavailable
from generation_service.engine.engine import Engine
from generation_service.hardware.devices import Device, Devices
from generation_service.models.catalog import ModelCatalog
from generation_service.processes.engine_client import EngineState, RequestOrigin
from generation_service.processes.engine_pool import EnginePool
from generation_service.processes.local_engine import LocalEngine
from tests.support.engine_calls import read
from tests.support.tone_model import Gate, ToneModel, fail_with, tone_parameters


class Pair:
    """A pool of two engines with a place in the batch and one in the queue each."""

    def __init__(self, preload: str | None = None) -> None:
        self.models = ToneModel(), ToneModel()
        self.info = self.models[0].info
        catalogs = [ModelCatalog(lambda model=model: [model.entry]) for model in self.models]
        self.engines = [
            LocalEngine(
                Device(f"cpu:{index}"),
                Engine(catalog, max_batch_size=1, max_waiting=1, preload=preload),
                max_batch_size=1,
            )
            for index, catalog in enumerate(catalogs)
        ]
        self.pool = EnginePool(catalogs[0], self.engines, Devices())

    def loads(self) -> list[int]:
        return [model.loads for model in self.models]


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.pool.start()
    yield pair
    await pair.pool.stop()


async def test_request_that_finds_one_queue_full_goes_to_the_other(pair: Pair) -> None:
    gate = Gate()
    for model in pair.models:
        model.at["held", 1] = gate
    handles = [await pair.pool.submit(pair.info, tone_parameters("held", blocks)) for blocks in (10, 1, 1)]
    # The engine of the long request has more to do, but the queue of the other one is full.
    handles.append(await pair.pool.submit(pair.info, tone_parameters("held", 1)))
    devices = [request.device.name for request in pair.pool.requests()]
    assert devices[0] == devices[3] != devices[1] == devices[2]
    with pytest.raises(ResourceExhausted, match="the queue is full") as caught:
        await pair.pool.submit(pair.info, tone_parameters("held", 1))
    assert caught.value.retry_after_seconds
    gate.open()
    for handle in handles:
        await read(handle)


async def test_request_that_finds_an_engine_ended_goes_to_the_other(pair: Pair) -> None:
    await pair.engines[0].stop()
    for _ in range(2):  # The idle engines take turns, so that one of these begins with the ended one.
        await read(await pair.pool.submit(pair.info, tone_parameters("a", 1)))
    await pair.engines[1].stop()
    with pytest.raises(Unavailable):
        await pair.pool.submit(pair.info, tone_parameters("a", 1))


async def test_idle_engine_that_has_the_model_goes_first(pair: Pair) -> None:
    for _ in range(3):
        await read(await pair.pool.submit(pair.info, tone_parameters("a", 1)))
    assert sorted(pair.loads()) == [0, 1]


async def test_engines_that_failed_to_preload_have_failed_until_the_model_is_loaded() -> None:
    pair = Pair(preload="tone")
    for model in pair.models:
        model.at["load", 1] = fail_with(OSError("no such file"))
    await pair.pool.start()
    try:
        await asyncio.gather(*(engine._engine._preload_task for engine in pair.engines))
        for report in pair.pool.reports():
            assert report.state is EngineState.FAILED
            assert "'tone' is not ready: it could not be loaded" in report.problem
        await pair.pool.load(pair.info)
        pair.pool.check()
        assert [report.state for report in pair.pool.reports()] == [EngineState.SERVING] * 2
    finally:
        await pair.pool.stop()


async def test_requests_that_have_ended_are_forgotten():
    model = ToneModel()
    catalog = ModelCatalog(lambda: [model.entry])
    engine = LocalEngine(Device("cpu"), Engine(catalog), max_batch_size=8)
    pool = EnginePool(catalog, [engine], Devices())
    await pool.start()
    for number in range(5):
        await read(await pool.submit(model.info, tone_parameters(f"{number}", 1)))
    gate = model.at["running", 1] = Gate()
    handle = await pool.submit(model.info, tone_parameters("running", 1), RequestOrigin(generation_id="id"))
    assert [request.handle for request in pool._requests] == [handle], "though nobody asked for them"
    assert [request.origin.generation_id for request in pool.requests()] == ["id"]
    gate.open()
    await read(handle)
    await pool.stop()


async def test_describing_a_model_does_not_wait_for_an_engine_that_is_at_work(pair: Pair) -> None:
    await pair.pool.load(pair.info)
    with pair.engines[0]._engine._shared.lock:
        async with asyncio.timeout(10):
            assert await asyncio.to_thread(pair.pool.is_loaded, pair.info)
            assert await asyncio.to_thread(pair.pool.execution, pair.info) is None
