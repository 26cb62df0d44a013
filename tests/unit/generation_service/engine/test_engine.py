"""Batching: which requests are stepped together, and which wait."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from dgx_music.errors import (
    ResourceExhausted,
    Unavailable,
)
from generation_service.engine.engine import Engine
from generation_service.engine.sequence import Stage
from generation_service.models.catalog import ModelCatalog
from tests.support.engine_calls import idle, read, submit
from tests.support.tone_model import Gate, ManualClock, ToneModel, tone, tone_parameters


async def test_request_yields_exactly_its_samples(start_engine, model):
    engine = await start_engine(model)
    handle = submit(engine, "tone", tone_parameters("a", 3.5))
    await handle.wait_until_started()
    assert handle.metadata == {"bpm": 120.0, "key": "A minor"}
    assert handle.stage is Stage.GENERATING
    samples = await read(handle)
    assert np.array_equal(samples, tone(tone_parameters("a", 3.5)))
    assert samples.dtype == np.float32
    assert (handle.frames_delivered, handle.progress) == (2800, 1.0)
    await idle(engine)
    assert model.released[0] == "a"


async def test_request_joins_the_running_batch_between_steps(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["a", 2] = Gate()
    a = submit(engine, "", tone_parameters("a", 4, seed=100))
    await gate.reached()
    b = submit(engine, "", tone_parameters("b", 3, seed=200))
    assert (engine.status().running, engine.status().waiting) == (1, 1)
    assert b.stage is Stage.QUEUED
    gate.open()
    samples_a, samples_b = await asyncio.gather(read(a), read(b))
    assert model.batches == [["a"], ["a"], ["a", "b"], ["a", "b"], ["b"]]
    assert np.array_equal(samples_a, tone(tone_parameters("a", 4, seed=100)))
    assert np.array_equal(samples_b, tone(tone_parameters("b", 3, seed=200)))


async def test_waiting_requests_are_admitted_in_order(start_engine, model):
    engine = await start_engine(model, max_batch_size=2)
    gate = model.at["a", 1] = Gate()
    handles = [submit(engine, "", tone_parameters("a", 3))]
    await gate.reached()
    handles += [submit(engine, "", tone_parameters(name, 2)) for name in "bcd"]
    assert (engine.status().running, engine.status().waiting) == (1, 3)
    gate.open()
    await asyncio.gather(*map(read, handles))
    assert model.prefilled == ["a", "b", "c", "d"]
    assert model.batches == [["a"], ["a", "b"], ["a", "b"], ["c", "d"], ["c", "d"]]


async def test_clients_are_served_in_turn(start_engine, model):
    engine = await start_engine(model, max_batch_size=1)
    gate = model.at["first", 1] = Gate()
    handles = [engine.submit(model.info, tone_parameters("first", 1), client="many")]
    await gate.reached()
    handles += [engine.submit(model.info, tone_parameters(f"{n}", 1), client="many") for n in range(20)]
    handles += [engine.submit(model.info, tone_parameters("one", 1), client="one")]
    gate.open()
    await asyncio.gather(*map(read, handles))
    assert model.prefilled[:4] == ["first", "0", "one", "1"]


async def test_models_alternate_and_share_no_batch(start_engine):
    turns: list[str] = []
    models = [ToneModel("one"), ToneModel("two")]
    for model in models:
        for step in range(1, 6):
            model.at["x", step] = lambda name=model.info.name: turns.append(name)
    gate = models[0].at["gate", 1] = Gate()
    engine = await start_engine(*models)
    handles = [submit(engine, "one", tone_parameters("gate", 1))]
    await gate.reached()
    handles += [
        submit(engine, "one", tone_parameters("x", 5)),
        submit(engine, "one", tone_parameters("y", 3)),
        submit(engine, "two", tone_parameters("x", 3)),
    ]
    gate.open()
    await asyncio.gather(*map(read, handles))
    assert turns == ["one", "two", "one", "two", "one", "two", "one", "one"]
    assert models[0].batches == [["gate"], ["x", "y"], ["x", "y"], ["x", "y"], ["x"], ["x"]]
    assert models[1].batches == [["x"]] * 3


async def test_full_queue_is_resource_exhausted_with_an_estimated_retry_time(start_engine, model):
    clock = ManualClock()
    engine = await start_engine(model, max_batch_size=1, max_waiting=2, clock=clock)
    model.at["a", 1] = model.at["a", 2] = clock.advance(0.5)
    gate = model.at["a", 3] = Gate()
    handles = [submit(engine, "", tone_parameters("a", 4))]
    await gate.reached()
    handles += [submit(engine, "", tone_parameters(name, 1)) for name in "bc"]
    with pytest.raises(ResourceExhausted, match=r"the queue is full \(1 running, 2 waiting\)") as caught:
        submit(engine, "", tone_parameters("d"))
    # 0.2 s of audio were generated in 1 s, and 0.2 s of the running request and 0.2 s of the waiting ones remain.
    assert caught.value.retry_after_seconds == pytest.approx(2.0)
    gate.open()
    await asyncio.gather(*map(read, handles))
    await idle(engine)


async def test_retry_time_without_measured_throughput_is_one_second(start_engine, model):
    engine = await start_engine(model, max_batch_size=1, max_waiting=0)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", tone_parameters("a", 1))
    await gate.reached()
    with pytest.raises(ResourceExhausted) as caught:
        submit(engine, "", tone_parameters("b"))
    assert caught.value.retry_after_seconds == 1.0
    gate.open()
    await read(a)


async def test_rates_cover_the_last_ten_seconds(start_engine, model):
    engine = await start_engine(model)
    await asyncio.gather(
        read(submit(engine, "", tone_parameters("a", 4))), read(submit(engine, "", tone_parameters("b", 4)))
    )
    await idle(engine)
    status = engine.status()
    assert status.audio_seconds_per_second == pytest.approx(0.08, abs=0.02)  # 0.8 s, and 0.1 s of `idle`, in 10 s.
    assert 0.4 <= status.steps_per_second <= 0.9
    assert (status.running, status.waiting, status.max_batch_size, status.max_waiting) == (0, 0, 8, 100)


async def test_stop_fails_unfinished_requests_and_releases_their_states(start_engine, model):
    engine = await start_engine(model, max_batch_size=1)
    gate = model.at["a", 1] = Gate()
    a, b = submit(engine, "", tone_parameters("a")), submit(engine, "", tone_parameters("b"))
    await gate.reached()
    stopping = asyncio.create_task(engine.stop())
    await asyncio.sleep(0)  # Let it reach the device thread and wait for it.
    gate.open()
    await stopping
    for handle in (a, b):
        with pytest.raises(Unavailable, match="shutting down"):
            await read(handle)
    assert model.released == ["a"]


async def test_check_of_an_engine_never_started_is_unavailable():
    engine = Engine(ModelCatalog(lambda: [ToneModel().entry]))
    with pytest.raises(Unavailable, match="not running"):
        engine.check()
    await engine.stop()
