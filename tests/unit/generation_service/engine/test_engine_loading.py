"""Loading and unloading of models between the steps of others."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dgx_music.errors import (
    FailedPrecondition,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)
from generation_service.engine.sequence import Stage
from service_runtime.supervision import UnrecoverableError
from tests.support.engine_calls import idle, read, submit
from tests.support.tone_model import BLOCK_FRAMES, Gate, ToneModel, fail_with, tone_parameters


async def test_model_is_loaded_once_by_the_first_request(start_engine, model):
    engine = await start_engine(model, max_batch_size=2)
    assert not engine.is_loaded(model.info)
    gate = model.at["load", 1] = Gate()
    a = submit(engine, "", tone_parameters("a", 1))
    await gate.reached()
    assert a.stage is Stage.LOADING_MODEL
    gate.open()
    await read(a)
    await idle(engine)
    assert engine.is_loaded(model.info)
    assert model.loads == 1


async def test_failed_load_fails_the_request_and_is_retried_by_the_next(start_engine, model):
    engine = await start_engine(model)
    pull = FailedPrecondition("no weights: dgx-music models pull tone", reason="WEIGHTS_MISSING")
    model.at["load", 1] = fail_with(pull)
    with pytest.raises(FailedPrecondition, match="models pull"):
        await read(submit(engine, "", tone_parameters("a")))
    assert len(await read(submit(engine, "", tone_parameters("a")))) == 4 * BLOCK_FRAMES


async def test_load_and_unload_run_between_steps_of_another_model(start_engine):
    one, two = ToneModel("one"), ToneModel("two")
    engine = await start_engine(one, two)
    gate = one.at["a", 1] = Gate()
    a = submit(engine, "one", tone_parameters("a", 2))
    await gate.reached()
    loading = asyncio.create_task(engine.load(two.info))
    unloading = asyncio.create_task(engine.unload("one"))
    await asyncio.sleep(0)  # Let both submit their tasks.
    gate.open()
    await loading
    with pytest.raises(
        FailedPrecondition, match="model 'one' is in use by 1 running generation; wait until they finish"
    ):
        await unloading
    assert engine.is_loaded(two.info)
    assert two.loads == 1
    await engine.load(two.info)
    assert two.loads == 1
    await engine.unload("two")
    assert not engine.is_loaded(two.info)
    assert len(await read(a)) == 2 * BLOCK_FRAMES
    await idle(engine)
    await engine.unload("one")
    await engine.unload("one")
    assert len(await read(submit(engine, "one", tone_parameters("a", 2)))) == 2 * BLOCK_FRAMES
    assert one.loads == 2


async def test_failed_load_raises_for_its_caller(start_engine, model):
    engine = await start_engine(model)
    model.at["load", 1] = fail_with(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    with pytest.raises(ResourceExhausted, match="model 'tone' ran out of memory while loading"):
        await engine.load(model.info)
    model.at["load", 2] = fail_with(ValueError("no such tone"))
    with pytest.raises(ServiceError, match="model 'tone' failed while loading: ValueError: no such tone"):
        await engine.load(model.info)
    await engine.load(model.info)


async def test_cancelled_unload_is_not_run(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["load", 1] = Gate()
    first = asyncio.create_task(engine.load(model.info))
    await gate.reached()
    second = asyncio.create_task(engine.unload("tone"))
    await asyncio.sleep(0)  # Let it submit its task.
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.open()
    await first
    await idle(engine)
    assert engine.is_loaded(model.info)


async def test_pending_unload_is_rejected_at_shutdown(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["load", 1] = Gate()
    first = asyncio.create_task(engine.load(model.info))
    await gate.reached()
    second = asyncio.create_task(engine.unload("tone"))
    stopping = asyncio.create_task(engine.stop())
    await asyncio.sleep(0)  # Let both reach the device thread.
    gate.open()
    await stopping
    await first
    with pytest.raises(Unavailable, match="shutting down"):
        await second
    with pytest.raises(Unavailable, match="not running"):
        await engine.load(model.info)


async def test_model_with_changed_files_is_loaded_again(start_engine, model):
    engine = await start_engine(model)
    await read(submit(engine, "", tone_parameters("a", 1)))
    model.info = replace(model.info, version="8")
    engine.catalog.refresh()
    assert not engine.is_loaded(model.info)
    await read(submit(engine, "", tone_parameters("a", 1)))
    assert model.loads == 2


async def test_check_fails_until_the_model_is_preloaded(start_engine, model):
    gate = model.at["load", 1] = Gate()
    engine = await start_engine(model, preload="tone")
    await gate.reached()
    with pytest.raises(Unavailable, match="model 'tone' is not ready: it is being loaded") as caught:
        engine.check()
    assert caught.value.reason == "MODEL_LOADING"
    gate.open()
    await idle(engine)
    engine.check()
    assert model.loads == 1
    await engine.unload("tone")
    engine.check()


async def test_check_says_why_the_model_could_not_be_preloaded(start_engine, model):
    model.at["load", 1] = fail_with(ValueError("no such tone"))
    engine = await start_engine(model, preload="")
    await asyncio.wait([engine._preload_task])
    with pytest.raises(Unavailable, match="'tone' is not ready: it could not be loaded: model 'tone' failed while"):
        engine.check()
    await engine.load(model.info)
    engine.check()


async def test_unknown_model_to_preload_fails_the_check(start_engine, model):
    engine = await start_engine(model, preload="nonsense")
    await asyncio.wait([engine._preload_task])
    with pytest.raises(
        Unavailable, match=r"'nonsense' is not ready: .* there is no model 'nonsense'; available models"
    ):
        engine.check()
    assert len(await read(submit(engine, "", tone_parameters("a")))) == 4 * BLOCK_FRAMES


async def test_fatal_error_during_preload_stops_the_engine(start_engine, model):
    model.at["load", 1] = fail_with(RuntimeError("CUDA error: device-side assert triggered"))
    engine = await start_engine(model, preload="tone")
    await asyncio.wait([engine._preload_task])
    assert await asyncio.to_thread(engine._device_thread.join, 30)
    with pytest.raises(UnrecoverableError, match="device-side assert"):
        engine.check()
