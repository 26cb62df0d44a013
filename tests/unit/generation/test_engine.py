"""The engine: who is stepped with whom, who waits, who is let go, and who fails alone."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from generation_service import engine as engine_module
from generation_service.engine import Engine
from generation_service.handle import GenerationHandle
from generation_service.model import FloatArray, GenerationParameters, TooLarge
from generation_service.registry import ModelCatalog
from generation_service.sequence import Stage
from service_runtime.errors import (
    Aborted,
    FailedPrecondition,
    Lost,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)
from tests.unit.generation.tone_model import BLOCK_FRAMES, RATE_HZ, Gate, ToneModel, ToneState, ask, fail_with, tone


async def read(handle: GenerationHandle) -> FloatArray:
    return np.concatenate([block async for block in handle])


def submit(engine: Engine, name: str, parameters: GenerationParameters) -> GenerationHandle:
    return engine.submit(engine.catalog.get(name).describe(), parameters)


async def idle(engine: Engine) -> None:
    """Returns when a request submitted now has come through: everything before it has been dealt with."""
    await read(submit(engine, "", ask("last", 1)))


async def test_a_request_gives_exactly_its_samples(start_engine, model):
    engine = await start_engine(model)
    handle = submit(engine, "tone", ask("a", 3.5))
    await handle.started()
    assert handle.metadata == {"bpm": 120.0, "key": "A minor"}
    assert handle.stage is Stage.GENERATING
    samples = await read(handle)
    assert np.array_equal(samples, tone(ask("a", 3.5)))
    assert samples.dtype == np.float32
    assert (handle.frames_made, handle.progress) == (2800, 1.0)
    await idle(engine)
    assert model.released[0] == "a"


async def test_a_request_joins_the_running_batch_between_steps(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["a", 2] = Gate()
    a = submit(engine, "", ask("a", 4, seed=100))
    await gate.reached()
    b = submit(engine, "", ask("b", 3, seed=200))
    assert (engine.status().running, engine.status().waiting) == (1, 1)
    assert b.stage is Stage.QUEUED
    gate.open()
    samples_a, samples_b = await asyncio.gather(read(a), read(b))
    assert model.batches == [["a"], ["a"], ["a", "b"], ["a", "b"], ["b"]]
    assert np.array_equal(samples_a, tone(ask("a", 4, seed=100)))
    assert np.array_equal(samples_b, tone(ask("b", 3, seed=200)))


async def test_waiting_requests_are_admitted_in_order_as_places_come_free(start_engine, model):
    engine = await start_engine(model, max_batch_size=2)
    gate = model.at["a", 1] = Gate()
    handles = [submit(engine, "", ask("a", 3))]
    await gate.reached()
    handles += [submit(engine, "", ask(name, 2)) for name in "bcd"]
    assert (engine.status().running, engine.status().waiting) == (1, 3)
    gate.open()
    await asyncio.gather(*map(read, handles))
    assert model.prefilled == ["a", "b", "c", "d"]
    assert model.batches == [["a"], ["a", "b"], ["a", "b"], ["c"], ["c", "d"], ["d"]]


async def test_models_take_turns_and_share_no_batch(start_engine):
    turns: list[str] = []
    models = [ToneModel("one"), ToneModel("two")]
    for model in models:
        for step in range(1, 6):
            model.at["x", step] = lambda name=model.info.name: turns.append(name)
    gate = models[0].at["gate", 1] = Gate()
    engine = await start_engine(*models)
    handles = [submit(engine, "one", ask("gate", 1))]
    await gate.reached()
    handles += [
        submit(engine, "one", ask("x", 5)),
        submit(engine, "one", ask("y", 3)),
        submit(engine, "two", ask("x", 3)),
    ]
    gate.open()
    await asyncio.gather(*map(read, handles))
    # One is admitted a round, so "two" joins in the third; from then on they alternate.
    assert turns == ["one", "one", "one", "two", "one", "two", "one", "two"]
    assert models[0].batches == [["gate"], ["x"], ["x", "y"], ["x", "y"], ["x", "y"], ["x"]]
    assert models[1].batches == [["x"]] * 3


async def test_cancel_frees_the_place_at_the_next_step_and_spares_the_others(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["a", 2] = Gate()
    a, b = submit(engine, "", ask("a", 50)), submit(engine, "", ask("b", 6, seed=300))
    await gate.reached()
    a.cancel()
    gate.open()
    assert np.array_equal(await read(b), tone(ask("b", 6, seed=300)))
    assert [batch for batch in model.batches if "a" in batch] == model.batches[:2]
    assert model.released[0] == "a"
    with pytest.raises(Aborted, match="cancelled"):
        await anext(a)
    await idle(engine)
    assert engine.status().running == 0


async def test_cancel_while_waiting_leaves_the_queue_at_once(start_engine, model):
    engine = await start_engine(model, max_batch_size=1)
    gate = model.at["a", 1] = Gate()
    a, b = submit(engine, "", ask("a", 1)), submit(engine, "", ask("b", 1))
    await gate.reached()
    assert engine.status().waiting == 1
    b.cancel()
    b.cancel()
    assert engine.status().waiting == 0
    gate.open()
    await read(a)
    await idle(engine)
    assert "b" not in model.prefilled


async def test_cancel_during_prefill_releases_the_state(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["a", 0] = Gate()
    a = submit(engine, "", ask("a"))
    await gate.reached()
    assert a.stage is Stage.ENCODING_PROMPT
    a.cancel()
    with pytest.raises(Aborted):
        await a.started()
    gate.open()
    await idle(engine)
    assert model.released == ["a", "last"]
    assert model.batches == [["last"]]


async def test_cancel_during_the_last_step_is_the_end_of_it(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["a", 2] = Gate()
    a = submit(engine, "", ask("a", 2))
    await gate.reached()
    a.cancel()
    gate.open()
    await idle(engine)
    with pytest.raises(Aborted):
        await anext(a)
    assert engine.status().running == 0


async def test_cancel_holds_for_a_batch_later_in_the_same_round(start_engine):
    one, two = ToneModel("one"), ToneModel("two")
    engine = await start_engine(one, two)
    first, gate = Gate(), Gate()
    one.at["a", 1], one.at["a", 3] = first, gate
    a = submit(engine, "one", ask("a", 4))
    await first.reached()
    b = submit(engine, "two", ask("b", 50))
    first.open()
    await gate.reached()  # Both are in this round, and "one" comes first.
    steps = len(two.batches)
    b.cancel()
    gate.open()
    await read(a)
    assert steps == 1
    assert len(two.batches) == steps


async def test_cancel_after_the_end_drops_what_was_not_read(start_engine, model):
    engine = await start_engine(model)
    a = submit(engine, "", ask("a", 2))
    await anext(a)
    await idle(engine)
    a.cancel()
    with pytest.raises(StopAsyncIteration):
        await anext(a)


async def test_a_slow_reader_pauses_its_own_sequence_alone(start_engine, model):
    engine = await start_engine(model, buffer_seconds=0.25)  # 2000 frames: full after the third block.
    slow, quick = submit(engine, "", ask("slow", 8)), submit(engine, "", ask("quick", 20))
    await slow.started()
    assert len(await read(quick)) == 20 * BLOCK_FRAMES
    await idle(engine)
    assert slow.frames_made == 3 * BLOCK_FRAMES
    assert engine.status().running == 1
    await anext(slow)  # 1600 frames are left: room for one more block.
    await idle(engine)
    assert slow.frames_made == 4 * BLOCK_FRAMES
    assert len(await read(slow)) == 7 * BLOCK_FRAMES


async def test_a_reader_that_reads_nothing_is_given_up(start_engine, model):
    engine = await start_engine(model, buffer_seconds=0.1, stall_seconds=0.05)
    stalled = submit(engine, "", ask("stalled"))
    await stalled.started()
    await asyncio.wait_for(model.release_of("stalled"), 5)
    with pytest.raises(Aborted, match=r"nobody read the audio for 0\.05 s"):
        await anext(stalled)


async def test_reading_in_time_stops_the_stall_timer(start_engine, model):
    engine = await start_engine(model, buffer_seconds=0.1, stall_seconds=0.2)
    handle = submit(engine, "", ask("a", 3))
    began = time.monotonic()
    async for _ in handle:
        await idle(engine)
    assert handle.progress == 1.0
    assert time.monotonic() - began < 5


async def test_a_full_queue_says_when_to_come_back(start_engine, model):
    engine = await start_engine(model, max_batch_size=1, max_waiting=2)
    gate = model.at["a", 3] = Gate()
    handles = [submit(engine, "", ask("a", 4))]
    await gate.reached()
    handles += [submit(engine, "", ask(name, 1)) for name in "bc"]
    with pytest.raises(ResourceExhausted, match="1 generations run and 2 wait") as refused:
        submit(engine, "", ask("d"))
    assert refused.value.retry_after_seconds == 10.0  # 0.2 s of audio are left, 0.2 s were made in the last ten.
    gate.open()
    await asyncio.gather(*map(read, handles))
    await idle(engine)


async def test_without_a_measured_speed_the_wait_is_a_second(start_engine, model):
    engine = await start_engine(model, max_batch_size=1, max_waiting=0)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", ask("a", 1))
    await gate.reached()
    with pytest.raises(ResourceExhausted) as refused:
        submit(engine, "", ask("b"))
    assert refused.value.retry_after_seconds == 1.0
    gate.open()
    await read(a)


async def test_a_failing_request_does_not_take_its_batch_along(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["good", 1] = Gate()
    good = submit(engine, "", ask("good", 6, seed=500))
    await gate.reached()
    bad = submit(engine, "", ask("bad", 6))
    model.at["bad", 3] = fail_with(ValueError("no\nsuch note"))
    gate.open()
    samples, failure = await asyncio.gather(read(good), read(bad), return_exceptions=True)
    assert np.array_equal(samples, tone(ask("good", 6, seed=500)))
    assert isinstance(failure, ServiceError)
    assert (failure.code, failure.reason) == ("INTERNAL", "MODEL_FAILED")
    assert failure.message == "model 'tone' failed at step 3: ValueError: no such note"
    assert model.batches.count(["good", "bad"]) == 3
    assert sorted(model.released) == ["bad", "bad", "good", "good"]
    await idle(engine)
    assert engine.status().running == 0


async def test_what_was_read_before_a_failure_stays_good(start_engine, model):
    engine = await start_engine(model)
    model.at["bad", 3] = fail_with(ValueError())
    bad = submit(engine, "", ask("bad"))
    samples = [await anext(bad), await anext(bad)]
    assert np.array_equal(np.concatenate(samples), tone(ask("bad", 2)))
    with pytest.raises(ServiceError, match=r"failed at step 3: ValueError$"):
        await anext(bad)


async def test_a_request_that_cannot_start_over_fails_alone(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", ask("a", 3))
    await gate.reached()
    b = submit(engine, "", ask("b", 3))

    def break_all() -> None:
        model.at["b", 0] = fail_with(RuntimeError("gone"))
        raise ValueError

    model.at["b", 1] = break_all
    gate.open()
    samples, failure = await asyncio.gather(read(a), read(b), return_exceptions=True)
    assert len(samples) == 3 * BLOCK_FRAMES
    assert "failed while starting over: RuntimeError: gone" in str(failure)


async def test_other_models_go_on_when_one_fails(start_engine):
    broken, sound = ToneModel("broken"), ToneModel("sound")
    engine = await start_engine(broken, sound)
    broken.at["a", 1] = fail_with(ValueError())
    samples, failure = await asyncio.gather(
        read(submit(engine, "sound", ask("a"))), read(submit(engine, "broken", ask("a"))), return_exceptions=True
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
async def test_running_out_of_memory_is_worth_another_try(start_engine, model, error):
    engine = await start_engine(model)
    model.at["a", 0] = fail_with(error)
    with pytest.raises(ResourceExhausted, match="ran out of memory before the first step") as failed:
        await submit(engine, "", ask("a")).started()
    assert failed.value.retry_after_seconds == 10.0
    assert len(await read(submit(engine, "", ask("b")))) == 4 * BLOCK_FRAMES


@pytest.mark.parametrize("step", [0, 2], ids=["in prefill", "in a step"])
async def test_an_error_that_no_cuda_call_survives_ends_the_engine(start_engine, model, step):
    engine = await start_engine(model)
    gate = model.at["good", 1] = Gate()
    good = submit(engine, "", ask("good", 50))
    await gate.reached()
    model.at["bad", step] = fail_with(RuntimeError("CUDA error: an illegal memory access was encountered"))
    bad = submit(engine, "", ask("bad"))
    gate.open()
    for handle in (good, bad):
        with pytest.raises(Unavailable, match="the engine stopped: RuntimeError: CUDA error: an illegal"):
            await read(handle)
    with pytest.raises(Lost, match="an illegal memory access"):
        engine.check()


async def test_such_an_error_while_loading_ends_it_too(start_engine, model):
    engine = await start_engine(model)
    model.at["load", 1] = fail_with(RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        await engine.load(model.info)
    with pytest.raises(Unavailable, match="device-side assert"):
        await read(submit(engine, "", ask("a")))


async def test_a_model_is_loaded_once_and_when_it_is_first_asked_for(start_engine, model):
    engine = await start_engine(model, max_batch_size=2)
    assert not engine.is_loaded(model.info)
    gate = model.at["load", 1] = Gate()
    a = submit(engine, "", ask("a", 1))
    await gate.reached()
    assert a.stage is Stage.LOADING_MODEL
    gate.open()
    await read(a)
    await idle(engine)
    assert engine.is_loaded(model.info)
    assert model.loads == 1


async def test_a_model_that_cannot_be_loaded_says_why_and_is_tried_again(start_engine, model):
    engine = await start_engine(model)
    pull = FailedPrecondition("no weights: dgx-music models pull tone", reason="WEIGHTS_MISSING")
    model.at["load", 1] = fail_with(pull)
    with pytest.raises(FailedPrecondition, match="models pull"):
        await read(submit(engine, "", ask("a")))
    assert len(await read(submit(engine, "", ask("a")))) == 4 * BLOCK_FRAMES


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (lambda block: np.concatenate([block] * 3), "at step 2: it made 4800 frames of 3200"),
        (lambda block: block.astype(np.float64), r"float64 \[800, 2\], not \[n, 2\]"),
        (lambda block: block[:, :1], r"float32 \[800, 1\], not \[n, 2\]"),
        (lambda block: block[:0], "at step 1001: it made 0 frames of 3200"),
    ],
    ids=["too many frames", "not float32", "mono", "never ends"],
)
async def test_a_model_that_breaks_its_word_fails_that_request(start_engine, model, shape, problem):
    engine = await start_engine(model)
    model.shapes["bad"] = shape
    bad, good = submit(engine, "", ask("bad")), submit(engine, "", ask("good"))
    samples, failure = await asyncio.gather(read(good), read(bad), return_exceptions=True)
    assert len(samples) == 4 * BLOCK_FRAMES
    assert isinstance(failure, ServiceError)
    assert failure.reason == "MODEL_OUTPUT"
    with pytest.raises(ServiceError, match=problem):
        raise failure


async def test_a_state_that_cannot_be_released_harms_nobody(start_engine, model):
    engine = await start_engine(model)
    release = model.release
    model.release = lambda state: fail_with(RuntimeError("stuck"))() if not model.released else release(state)
    handle = submit(engine, "", ask("a"))
    model.released.clear()
    assert len(await read(handle)) == 4 * BLOCK_FRAMES
    model.released.append("a")
    await idle(engine)
    engine.check()


class Memory:
    """What a model with a bounded cache tells of it."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.reserved_bytes = 0


class BoundedModel(ToneModel):
    """Keeps a byte for each frame to be made, of so many."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self.memory = Memory(limit_bytes)
        self.refused: list[str] = []

    def prefill(self, parameters: GenerationParameters) -> ToneState:
        if parameters.frames > self.memory.limit_bytes:
            raise TooLarge("duration_seconds", f"at most {self.memory.limit_bytes / RATE_HZ:g} s fit")
        if self.memory.reserved_bytes + parameters.frames > self.memory.limit_bytes:
            self.refused.append(parameters.prompt)
            raise ResourceExhausted("no room", reason="KV_MEMORY", retry_after_seconds=1.0)
        state = super().prefill(parameters)
        self.memory.reserved_bytes += parameters.frames
        return state

    def release(self, state: ToneState) -> None:
        self.memory.reserved_bytes -= state.parameters.frames
        super().release(state)


async def test_what_does_not_fit_beside_the_others_waits_and_nobody_overtakes_it(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", ask("a", 2))
    await gate.reached()
    b, large, small = [submit(engine, "", ask(*asked)) for asked in [("b", 3), ("large", 5), ("small", 1)]]
    gate.open()
    samples = await asyncio.gather(*map(read, (a, b, large, small)))
    assert [len(each) for each in samples] == [1600, 2400, 4000, 800]
    assert model.prefilled == ["a", "b", "large", "small"]
    assert model.refused == ["large", "small"], "asked once for each that left, not at each step"
    assert large.stage is Stage.GENERATING
    await idle(engine)
    assert model.memory.reserved_bytes == 0


async def test_status_tells_the_memory_reserved(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    assert (engine.status().kv_reserved_bytes, engine.status().kv_limit_bytes) == (0, 0)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", ask("a", 2))
    await gate.reached()
    assert (engine.status().kv_reserved_bytes, engine.status().kv_limit_bytes) == (1600, 4000)
    gate.open()
    await read(a)


async def test_what_would_never_fit_fails_before_it_starts_and_holds_nobody_up(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    first, second = Gate(), Gate()
    model.at["a", 1], model.at["a", 3] = first, second
    a = submit(engine, "", ask("a", 5))
    await first.reached()
    large = submit(engine, "", ask("large", 6))
    first.open()
    await second.reached()
    with pytest.raises(TooLarge, match=r"duration_seconds: at most 0\.5 s fit") as refused:
        await large.started()
    assert (refused.value.field, refused.value.retry_after_seconds) == ("duration_seconds", 60)
    second.open()
    assert len(await read(a)) == 4000


async def test_what_does_not_fit_while_nobody_else_runs_fails(start_engine, model):
    engine = await start_engine(model)
    model.at["a", 0] = fail_with(ResourceExhausted("another program has it", reason="KV_MEMORY"))
    with pytest.raises(ResourceExhausted, match="another program"):
        await read(submit(engine, "", ask("a")))


async def test_a_request_that_waits_for_memory_can_be_cancelled(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    first, second = Gate(), Gate()
    model.at["a", 1], model.at["a", 3] = first, second
    a = submit(engine, "", ask("a", 4))
    await first.reached()
    b, c = submit(engine, "", ask("b", 2)), submit(engine, "", ask("c", 1))
    first.open()
    await second.reached()
    assert (model.refused, engine.status().waiting) == (["b"], 2)
    b.cancel()
    second.open()
    assert len(await read(c)) == 800
    assert len(await read(a)) == 3200
    assert "b" not in model.prefilled


async def test_a_cancel_of_one_that_runs_makes_room(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    first, second = Gate(), Gate()
    model.at["a", 1], model.at["a", 3] = first, second
    a = submit(engine, "", ask("a", 5))
    await first.reached()
    b = submit(engine, "", ask("b", 2))
    first.open()
    await second.reached()
    assert model.refused == ["b"]
    a.cancel()
    second.open()
    assert len(await read(b)) == 1600


async def test_a_cancel_while_its_memory_is_asked_for_is_the_end_of_it(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    first = model.at["a", 1] = Gate()
    a = submit(engine, "", ask("a", 4))
    await first.reached()
    asked = Gate()

    def refuse() -> None:
        asked()
        raise ResourceExhausted("no room", reason="KV_MEMORY")

    model.at["b", 0] = refuse
    b = submit(engine, "", ask("b", 1))
    first.open()
    await asked.reached()
    b.cancel()
    asked.open()
    assert len(await read(a)) == 3200
    await idle(engine)
    assert model.prefilled.count("b") == 1
    assert (engine.status().running, engine.status().waiting) == (0, 0)


async def test_a_hundred_requests_are_served_in_order_and_leave_nothing_behind(start_engine):
    model = BoundedModel(12 * BLOCK_FRAMES)
    engine = await start_engine(model, max_batch_size=4, max_waiting=100)

    async def serve(names: range) -> int:
        handles = [submit(engine, "", ask(f"{name:03}", 4)) for name in names]
        samples = await asyncio.gather(*map(read, handles))
        assert all(len(each) == 4 * BLOCK_FRAMES for each in samples)
        del handles, samples
        await idle(engine)
        assert model.prefilled == [*(f"{name:03}" for name in names), "last"]
        for record in (model.batches, model.prefilled, model.asked, model.released, model.refused):
            record.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        after_ten = await serve(range(10))
        after_all = await serve(range(10, 110))
    finally:
        tracemalloc.stop()
    assert model.memory.reserved_bytes == 0
    audio_bytes = 4 * BLOCK_FRAMES * 2 * 4  # Of one request. asyncio's set of tasks keeps 11 kB of its largest size.
    assert after_all - after_ten < audio_bytes, f"{after_all - after_ten} bytes"


async def test_models_can_be_loaded_and_unloaded_while_others_run(start_engine):
    one, two = ToneModel("one"), ToneModel("two")
    engine = await start_engine(one, two)
    gate = one.at["a", 1] = Gate()
    a = submit(engine, "one", ask("a", 2))
    await gate.reached()
    loading = asyncio.create_task(engine.load(two.info))
    unloading = asyncio.create_task(engine.unload("one"))
    await asyncio.sleep(0)  # Both have asked.
    gate.open()
    await loading
    with pytest.raises(FailedPrecondition, match="1 generations run on model 'one': wait for their end"):
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
    assert len(await read(submit(engine, "one", ask("a", 2)))) == 2 * BLOCK_FRAMES
    assert one.loads == 2


async def test_a_load_that_fails_tells_who_asked_for_it(start_engine, model):
    engine = await start_engine(model)
    model.at["load", 1] = fail_with(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    with pytest.raises(ResourceExhausted, match="model 'tone' ran out of memory while loading"):
        await engine.load(model.info)
    model.at["load", 2] = fail_with(ValueError("no such tone"))
    with pytest.raises(ServiceError, match="model 'tone' failed while loading: ValueError: no such tone"):
        await engine.load(model.info)
    await engine.load(model.info)


async def test_a_load_that_nobody_waits_for_any_more_is_not_begun(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["load", 1] = Gate()
    first = asyncio.create_task(engine.load(model.info))
    await gate.reached()
    second = asyncio.create_task(engine.unload("tone"))
    await asyncio.sleep(0)  # It has asked.
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.open()
    await first
    await idle(engine)
    assert engine.is_loaded(model.info)


async def test_what_is_still_asked_for_at_the_end_is_refused(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["load", 1] = Gate()
    first = asyncio.create_task(engine.load(model.info))
    await gate.reached()
    second = asyncio.create_task(engine.unload("tone"))
    stopping = asyncio.create_task(engine.stop())
    await asyncio.sleep(0)  # Both have told the device thread.
    gate.open()
    await stopping
    await first
    with pytest.raises(Unavailable, match="shutting down"):
        await second
    with pytest.raises(Unavailable, match="not running"):
        await engine.load(model.info)


async def test_files_that_changed_make_another_model(start_engine, model):
    engine = await start_engine(model)
    await read(submit(engine, "", ask("a", 1)))
    model.info = replace(model.info, version="8")
    engine.catalog.refresh()
    assert not engine.is_loaded(model.info)
    await read(submit(engine, "", ask("a", 1)))
    assert model.loads == 2


async def test_rates_cover_the_last_ten_seconds(start_engine, model):
    engine = await start_engine(model)
    await asyncio.gather(read(submit(engine, "", ask("a", 4))), read(submit(engine, "", ask("b", 4))))
    await idle(engine)
    status = engine.status()
    assert status.audio_seconds_per_second == pytest.approx(0.08, abs=0.02)  # 0.8 s, and the last one's 0.1 s, in 10.
    assert 0.4 <= status.steps_per_second <= 0.9
    assert (status.running, status.waiting, status.max_batch_size, status.max_waiting) == (0, 0, 8, 100)


class DeviceLost(BaseException):
    """Nothing that a request could be blamed for."""


async def test_a_lost_device_fails_everyone_and_the_check(start_engine, model, monkeypatch):
    engine = await start_engine(model, max_batch_size=1)
    gate = model.at["a", 1] = Gate()
    a, b = submit(engine, "", ask("a")), submit(engine, "", ask("b"))
    await gate.reached()
    model.at["a", 2] = fail_with(DeviceLost("xid 79"))
    gate.open()
    for handle in (a, b):
        with pytest.raises(Unavailable, match="the engine stopped: DeviceLost: xid 79"):
            await read(handle)
    with pytest.raises(Unavailable, match="DeviceLost: xid 79"):
        engine.check()
    with pytest.raises(Unavailable, match="not running"):
        submit(engine, "", ask("c"))


async def test_stop_fails_everyone_left_and_releases_their_states(start_engine, model):
    engine = await start_engine(model, max_batch_size=1)
    gate = model.at["a", 1] = Gate()
    a, b = submit(engine, "", ask("a")), submit(engine, "", ask("b"))
    await gate.reached()
    stopping = asyncio.create_task(engine.stop())
    await asyncio.sleep(0)  # It has told the device thread, and waits for it.
    gate.open()
    await stopping
    for handle in (a, b):
        with pytest.raises(Unavailable, match="shutting down"):
            await read(handle)
    assert model.released == ["a"]


async def test_a_hung_model_call_is_seen(start_engine, model, monkeypatch):
    engine = await start_engine(model)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", ask("a", 1))
    await gate.reached()
    engine.check()
    monkeypatch.setattr(engine_module, "STEP_LIMIT_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="a model call takes over"):
        engine.check()
    monkeypatch.setattr(engine_module, "STOP_SECONDS", 0.0)
    await engine.stop()  # Does not wait for it for ever.
    gate.open()
    assert len(await read(a)) == BLOCK_FRAMES
    monkeypatch.undo()
    await engine.stop()


async def test_an_engine_that_was_never_started_says_so():
    engine = Engine(ModelCatalog(lambda: [ToneModel().entry]))
    with pytest.raises(Unavailable, match="not running"):
        engine.check()
    await engine.stop()
