"""What the engine tells of its requests."""

from __future__ import annotations

from generation_service.engine.engine_status import MAX_REQUESTS, RequestStatus, describe_requests
from generation_service.engine.sequence import Sequence, Stage
from tests.support.engine_calls import read
from tests.support.tone_model import RATE_HZ, Gate, ManualClock, ToneModel, tone_parameters


async def test_status_describes_requests_and_loaded_models(start_engine):
    models, clock = [ToneModel("two"), ToneModel("one")], ManualClock()
    engine = await start_engine(*models, max_batch_size=1, clock=clock)
    assert (engine.status().loaded_models, engine.status().requests) == ((), ())
    await engine.load(models[1].info)
    gate = models[0].at["a", 2] = Gate()
    a = engine.submit(models[0].info, tone_parameters("a", 4), client="ann", generation_id="id of a")
    await gate.reached()
    clock.now += 5
    b = engine.submit(models[1].info, tone_parameters("b", 1))
    clock.now += 2
    status = engine.status()
    assert status.loaded_models == ("one", "two")
    assert status.requests == (
        RequestStatus("id of a", "ann", "two", Stage.GENERATING, 800, 3200, RATE_HZ, 7.0),
        RequestStatus("", "", "one", Stage.QUEUED, 0, 800, RATE_HZ, 2.0),
    )
    gate.open()
    await read(a)
    await read(b)
    assert engine.status().requests == ()


def test_only_the_oldest_of_very_many_requests_are_described():
    info = ToneModel().info
    sequences = [
        Sequence(info, tone_parameters("a"), 1, None, submitted_at=float(-number))  # type: ignore[arg-type]
        for number in range(MAX_REQUESTS + 5)
    ]
    described = describe_requests(sequences, 0.0)
    assert [request.age_seconds for request in described] == [float(MAX_REQUESTS + 4 - n) for n in range(MAX_REQUESTS)]
