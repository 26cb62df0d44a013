"""Failures of a model or the device: which requests fail, and which continue."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from dgx_music.errors import ResourceExhausted, ServiceError, Unavailable
from generation_service.engine import engine as engine_module
from service_runtime.supervision import UnrecoverableError
from tests.support.engine_calls import idle, read, submit
from tests.support.tone_model import BLOCK_FRAMES, Gate, ToneModel, fail_with, tone, tone_parameters


async def test_failing_request_does_not_fail_its_batch(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["good", 1] = Gate()
    good = submit(engine, "", tone_parameters("good", 6, seed=500))
    await gate.reached()
    bad = submit(engine, "", tone_parameters("bad", 6))
    model.at["bad", 3] = fail_with(ValueError("no\nsuch note"))
    gate.open()
    samples, failure = await asyncio.gather(read(good), read(bad), return_exceptions=True)
    assert np.array_equal(samples, tone(tone_parameters("good", 6, seed=500)))
    assert isinstance(failure, ServiceError)
    assert (failure.code, failure.reason) == ("INTERNAL", "MODEL_FAILED")
    assert failure.message == "model 'tone' failed at step 3: ValueError: no such note"
    assert [sorted(batch) for batch in model.batches].count(["bad", "good"]) == 3
    assert sorted(model.released) == ["bad", "bad", "good", "good"]
    await idle(engine)
    assert engine.status().running == 0


async def test_blocks_read_before_a_failure_are_correct(start_engine, model):
    engine = await start_engine(model)
    model.at["bad", 3] = fail_with(ValueError())
    bad = submit(engine, "", tone_parameters("bad"))
    samples = [await anext(bad), await anext(bad)]
    assert np.array_equal(np.concatenate(samples), tone(tone_parameters("bad", 2)))
    with pytest.raises(ServiceError, match=r"failed at step 3: ValueError$"):
        await anext(bad)


async def test_request_that_cannot_restart_fails_alone(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", tone_parameters("a", 3))
    await gate.reached()
    b = submit(engine, "", tone_parameters("b", 3))

    def break_all() -> None:
        model.at["b", 0] = fail_with(RuntimeError("gone"))
        raise ValueError

    model.at["b", 1] = break_all
    gate.open()
    samples, failure = await asyncio.gather(read(a), read(b), return_exceptions=True)
    assert len(samples) == 3 * BLOCK_FRAMES
    assert "failed while restarting: RuntimeError: gone" in str(failure)


async def test_failing_model_does_not_affect_other_models(start_engine):
    broken, sound = ToneModel("broken"), ToneModel("sound")
    engine = await start_engine(broken, sound)
    broken.at["a", 1] = fail_with(ValueError())
    samples, failure = await asyncio.gather(
        read(submit(engine, "sound", tone_parameters("a"))),
        read(submit(engine, "broken", tone_parameters("a"))),
        return_exceptions=True,
    )
    assert len(samples) == 4 * BLOCK_FRAMES
    assert isinstance(failure, ServiceError)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["host", "GPU", "driver", "cuBLAS", "torch on the host"],
)
async def test_out_of_memory_is_resource_exhausted_with_a_retry_time(start_engine, model, error):
    engine = await start_engine(model)
    model.at["a", 0] = fail_with(error)
    with pytest.raises(ResourceExhausted, match="ran out of memory before the first step") as failed:
        await submit(engine, "", tone_parameters("a")).wait_until_started()
    assert failed.value.retry_after_seconds == 10.0
    assert len(await read(submit(engine, "", tone_parameters("b")))) == 4 * BLOCK_FRAMES


@pytest.mark.parametrize("step", [0, 2], ids=["in prefill", "in a step"])
async def test_fatal_cuda_error_stops_the_engine(start_engine, model, step):
    engine = await start_engine(model)
    gate = model.at["good", 1] = Gate()
    good = submit(engine, "", tone_parameters("good", 50))
    await gate.reached()
    model.at["bad", step] = fail_with(RuntimeError("CUDA error: an illegal memory access was encountered"))
    bad = submit(engine, "", tone_parameters("bad"))
    gate.open()
    for handle in (good, bad):
        with pytest.raises(Unavailable, match="the engine stopped: RuntimeError: CUDA error: an illegal"):
            await read(handle)
    with pytest.raises(UnrecoverableError, match="an illegal memory access"):
        engine.check()
    assert model.released == [], "a lost device must not be called"


async def test_fatal_cuda_error_during_load_stops_the_engine(start_engine, model):
    engine = await start_engine(model)
    model.at["load", 1] = fail_with(RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        await engine.load(model.info)
    with pytest.raises(Unavailable, match="device-side assert"):
        await read(submit(engine, "", tone_parameters("a")))


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (lambda block: np.concatenate([block] * 3), "at step 2: 4800 frames, expected 3200"),
        (lambda block: block.astype(np.float64), r"float64 \[800, 2\], expected float32 \[n, 2\]"),
        (lambda block: block[:, :1], r"float32 \[800, 1\], expected float32 \[n, 2\]"),
    ],
    ids=["too many frames", "not float32", "mono"],
)
async def test_invalid_model_output_fails_only_its_request(start_engine, model, shape, problem):
    engine = await start_engine(model)
    model.shapes["bad"] = shape
    bad, good = submit(engine, "", tone_parameters("bad")), submit(engine, "", tone_parameters("good"))
    samples, failure = await asyncio.gather(read(good), read(bad), return_exceptions=True)
    assert len(samples) == 4 * BLOCK_FRAMES
    assert isinstance(failure, ServiceError)
    assert failure.reason == "MODEL_OUTPUT"
    with pytest.raises(ServiceError, match=problem):
        raise failure


async def test_failed_release_does_not_fail_the_request(start_engine, model):
    engine = await start_engine(model)
    release = model.release
    model.release = lambda state: fail_with(RuntimeError("stuck"))() if not model.released else release(state)
    handle = submit(engine, "", tone_parameters("a"))
    model.released.clear()
    assert len(await read(handle)) == 4 * BLOCK_FRAMES
    model.released.append("a")
    await idle(engine)
    engine.check()


class DeviceLost(BaseException):
    """An error that no single request caused."""


async def test_lost_device_fails_all_requests_and_the_check(start_engine, model, monkeypatch):
    engine = await start_engine(model, max_batch_size=1)
    gate = model.at["a", 1] = Gate()
    a, b = submit(engine, "", tone_parameters("a")), submit(engine, "", tone_parameters("b"))
    await gate.reached()
    model.at["a", 2] = fail_with(DeviceLost("xid 79"))
    gate.open()
    for handle in (a, b):
        with pytest.raises(Unavailable, match="the engine stopped: DeviceLost: xid 79"):
            await read(handle)
    with pytest.raises(Unavailable, match="DeviceLost: xid 79"):
        engine.check()
    with pytest.raises(Unavailable, match="not running"):
        submit(engine, "", tone_parameters("c"))


async def test_hung_model_call_fails_the_check(start_engine, model, monkeypatch):
    engine = await start_engine(model)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", tone_parameters("a", 1))
    await gate.reached()
    engine.check()
    monkeypatch.setattr(engine_module, "MODEL_CALL_TIMEOUT_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="a model call has been running for more than"):
        engine.check()
    monkeypatch.setattr(engine_module, "STOP_TIMEOUT_SECONDS", 0.0)
    await engine.stop()  # Must not wait forever for the hung call.
    gate.open()
    assert len(await read(a)) == BLOCK_FRAMES
    monkeypatch.undo()
    await engine.stop()
