"""Prompts are encoded while other requests run, and a failure there concerns one request only."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from dgx_music.errors import Aborted, ServiceError, Unavailable
from generation_service.engine import engine as engine_module
from generation_service.engine.scheduler import ENCODE_AHEAD
from generation_service.engine.sequence import Stage
from service_runtime.supervision import UnrecoverableError
from tests.support.engine_calls import read, submit
from tests.support.tone_model import BLOCK_FRAMES, Gate, PromptToneModel, fail_with, tone, tone_parameters


@pytest.fixture
def model() -> PromptToneModel:
    return PromptToneModel()


@pytest.fixture
async def engine(start_engine, model):
    """An engine that has loaded the model."""
    engine = await start_engine(model)
    await engine.load(model.info)
    return engine


async def test_prompt_is_encoded_before_its_request_is_admitted(engine, model):
    gate = model.at_encoding["a"] = Gate()
    a = submit(engine, "", tone_parameters("a"))
    await gate.reached()
    assert a.stage is Stage.ENCODING_PROMPT
    assert (engine.status().running, engine.status().waiting, model.prefilled) == (0, 1, [])
    gate.open()
    assert np.array_equal(await read(a), tone(tone_parameters("a")))
    assert (model.encoded, model.prefilled) == ([["a"]], ["a"])


async def test_others_run_while_a_prompt_is_encoded(engine, model):
    gate = model.at_encoding["slow"] = Gate()
    first = submit(engine, "", tone_parameters("first", 50))
    await first.wait_until_started()
    slow = submit(engine, "", tone_parameters("slow"))
    await gate.reached()
    assert len(await read(first)) == 50 * BLOCK_FRAMES
    gate.open()
    assert len(await read(slow)) == 4 * BLOCK_FRAMES


async def test_prompts_that_arrive_meanwhile_are_encoded_together(engine, model):
    gate = model.at_encoding["a"] = Gate()
    handles = [submit(engine, "", tone_parameters("a"))]
    await gate.reached()
    handles += [submit(engine, "", tone_parameters(f"{number:02}")) for number in range(20)]
    gate.open()
    await asyncio.gather(*map(read, handles))
    assert [len(prompts) for prompts in model.encoded] == [1, 16, 4]
    assert [prompt for prompts in model.encoded for prompt in prompts] == model.prefilled


async def test_all_prompts_are_encoded_however_many_wait(start_engine, model):
    engine = await start_engine(model, max_batch_size=1)
    await engine.load(model.info)
    handles = [submit(engine, "", tone_parameters(f"{number}", 1)) for number in range(3 * ENCODE_AHEAD)]
    await asyncio.gather(*map(read, handles))
    assert len(model.prefilled) == 3 * ENCODE_AHEAD


async def test_cancelled_requests_make_room_for_the_prompts_of_others(start_engine, model):
    engine = await start_engine(model, max_batch_size=1, buffer_seconds=0.1)
    await engine.load(model.info)
    paused = submit(engine, "", tone_parameters("paused"))
    await paused.wait_until_started()
    prompt_work, is_asleep = engine._shared.prompt_work, threading.Event()
    wait = prompt_work.wait

    def noting_wait() -> None:
        if sum(map(len, model.encoded)) == 1 + 1 + ENCODE_AHEAD:
            is_asleep.set()
        wait()

    prompt_work.wait = noting_wait
    handles = [submit(engine, "", tone_parameters(f"{number}")) for number in range(ENCODE_AHEAD + 2)]
    assert await asyncio.to_thread(is_asleep.wait, 30)
    gate = model.at_encoding[f"{ENCODE_AHEAD + 1}"] = Gate()
    gate.open()
    for handle in handles[: ENCODE_AHEAD + 1]:
        handle.cancel()
    await gate.reached()
    paused.cancel()


async def test_model_says_how_many_prompts_it_encodes_at_once(start_engine):
    model = PromptToneModel(prompt_batch_size=2)
    engine = await start_engine(model)
    await engine.load(model.info)
    gate = model.at_encoding["a"] = Gate()
    handles = [submit(engine, "", tone_parameters("a"))]
    await gate.reached()
    handles += [submit(engine, "", tone_parameters(name)) for name in "bcd"]
    gate.open()
    await asyncio.gather(*map(read, handles))
    assert model.encoded == [["a"], ["b", "c"], ["d"]]


async def test_request_that_loads_the_model_is_not_kept_waiting_for_the_thread(start_engine, model):
    engine = await start_engine(model, max_batch_size=2)
    gate = model.at["load", 1] = Gate()
    a = submit(engine, "", tone_parameters("a"))
    await gate.reached()
    b = submit(engine, "", tone_parameters("b"))
    assert (a.stage, b.stage) == (Stage.LOADING_MODEL, Stage.QUEUED)
    gate.open()
    await asyncio.gather(read(a), read(b))
    assert model.encoded == [["b"]]
    assert model.loads == 1


async def test_nothing_is_encoded_while_a_model_is_loaded(start_engine, model):
    gate = Gate()
    other = PromptToneModel("other")
    other.at["load", 1] = gate
    engine = await start_engine(model, other)
    await engine.load(model.info)
    loading = asyncio.create_task(engine.load(other.info))
    await gate.reached()
    loading_lock, is_asked_for = engine._shared.models.loading, threading.Event()

    class AskedLock:
        def __enter__(self) -> None:
            is_asked_for.set()
            loading_lock.acquire()

        def __exit__(self, *_: object) -> None:
            loading_lock.release()

    engine._shared.models.loading = AskedLock()
    a = submit(engine, "tone", tone_parameters("a"))
    assert await asyncio.to_thread(is_asked_for.wait, 30)
    assert model.encoded == [], "the prompt thread waits"
    gate.open()
    await loading
    assert len(await read(a)) == 4 * BLOCK_FRAMES
    assert model.encoded == [["a"]]


async def test_failure_to_encode_fails_only_its_request(engine, model):
    gate = model.at_encoding["a"] = Gate()
    handles = [submit(engine, "", tone_parameters("a"))]
    await gate.reached()
    handles += [submit(engine, "", tone_parameters(name)) for name in ("b", "bad", "c")]
    model.at_encoding["bad"] = fail_with(ValueError("no such word"))
    gate.open()
    a, b, bad, c = await asyncio.gather(*map(read, handles), return_exceptions=True)
    assert [len(samples) for samples in (a, b, c)] == [4 * BLOCK_FRAMES] * 3
    assert isinstance(bad, ServiceError)
    assert bad.message == "model 'tone' failed while encoding the prompt: ValueError: no such word"
    assert model.encoded == [["a"], ["b", "bad", "c"], ["b"], ["bad"], ["c"]]
    assert (engine.status().waiting, "bad" in model.prefilled) == (0, False)


async def test_prompt_without_memory_is_left_to_prefill(engine, model):
    model.at_encoding["a"] = fail_with(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert len(await read(submit(engine, "", tone_parameters("a")))) == 4 * BLOCK_FRAMES


async def test_cancel_while_encoding_leaves_the_queue_at_once(engine, model):
    gate = model.at_encoding["a"] = Gate()
    a = submit(engine, "", tone_parameters("a"))
    await gate.reached()
    b = submit(engine, "", tone_parameters("b"))
    a.cancel()
    assert engine.status().waiting == 1
    gate.open()
    await read(b)
    with pytest.raises(Aborted):
        await read(a)
    assert model.prefilled == ["b"]


async def test_cancel_while_encoding_fails(engine, model):
    gate = Gate()

    def fail() -> None:
        gate()
        raise ValueError

    model.at_encoding["a"] = fail
    a = submit(engine, "", tone_parameters("a"))
    await gate.reached()
    a.cancel()
    gate.open()
    assert len(await read(submit(engine, "", tone_parameters("b")))) == 4 * BLOCK_FRAMES
    assert engine.status().waiting == 0


async def test_prompt_of_an_unloaded_model_is_encoded_after_it_is_loaded_again(start_engine, model):
    engine = await start_engine(model, max_batch_size=1)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", tone_parameters("a", 1))
    await gate.reached()
    b = submit(engine, "", tone_parameters("b", 1))
    engine._shared.models.unload("tone")
    gate.open()
    await asyncio.gather(read(a), read(b))
    assert model.loads == 2


async def test_fatal_error_while_encoding_stops_the_engine(engine, model):
    other = submit(engine, "", tone_parameters("other", 10**6))
    await other.wait_until_started()
    model.at_encoding["bad"] = fail_with(RuntimeError("CUDA error: an illegal memory access was encountered"))
    bad = submit(engine, "", tone_parameters("bad"))
    for handle in (bad, other):
        with pytest.raises(Unavailable, match="the engine stopped: RuntimeError: CUDA error: an illegal"):
            await read(handle)
    with pytest.raises(UnrecoverableError, match="an illegal memory access"):
        engine.check()


async def test_hung_encoding_fails_the_check(engine, model, monkeypatch):
    gate = model.at_encoding["a"] = Gate()
    a = submit(engine, "", tone_parameters("a"))
    await gate.reached()
    engine.check()
    monkeypatch.setattr(engine_module, "MODEL_CALL_TIMEOUT_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="a model call has been running for more than"):
        engine.check()
    gate.open()
    await read(a)


async def test_stop_fails_requests_whose_prompts_are_encoded(engine, model):
    gate = model.at_encoding["a"] = Gate()
    a, b = submit(engine, "", tone_parameters("a")), submit(engine, "", tone_parameters("b"))
    await gate.reached()
    stopping = asyncio.create_task(engine.stop())
    await asyncio.sleep(0)  # Let it ask the threads to end.
    gate.open()
    await stopping
    for handle in (a, b):
        with pytest.raises(Unavailable, match="shutting down"):
            await read(handle)
    assert model.prefilled == []
