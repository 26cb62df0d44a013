"""What a pool of one engine in this process keeps of its requests."""

from __future__ import annotations

from generation_service.engine.engine import Engine
from generation_service.hardware.devices import Device, Devices
from generation_service.models.catalog import ModelCatalog
from generation_service.processes.engine_client import RequestOrigin
from generation_service.processes.engine_pool import EnginePool
from generation_service.processes.local_engine import LocalEngine
from tests.support.engine_calls import read
from tests.support.tone_model import Gate, ToneModel, tone_parameters


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
