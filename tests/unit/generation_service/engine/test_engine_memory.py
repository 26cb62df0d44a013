"""The engine's use of limited model memory: a request that does not fit waits, or fails before it starts."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest

from dgx_music.errors import (
    ResourceExhausted,
)
from generation_service.engine.scheduler import MAX_OVERTAKES
from generation_service.engine.sequence import Stage
from generation_service.models.base import GenerationParameters, TooLarge
from tests.support.engine_calls import idle, read, submit
from tests.support.tone_model import BLOCK_FRAMES, RATE_HZ, Gate, ToneModel, ToneState, fail_with, tone_parameters


class Memory:
    """The memory of a model with a limited cache."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.reserved_bytes = 0


class BoundedModel(ToneModel):
    """Reserves one byte per requested frame out of a limited memory."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self.memory = Memory(limit_bytes)
        self.rejected: list[str] = []

    def prefill(self, parameters: GenerationParameters) -> ToneState:
        if parameters.frames > self.memory.limit_bytes:
            raise TooLarge("duration_seconds", f"at most {self.memory.limit_bytes / RATE_HZ:g} s fit")
        if self.memory.reserved_bytes + parameters.frames > self.memory.limit_bytes:
            self.rejected.append(parameters.prompt)
            raise ResourceExhausted("no room", reason="KV_MEMORY", retry_after_seconds=1.0)
        state = super().prefill(parameters)
        self.memory.reserved_bytes += parameters.frames
        return state

    def release(self, state: ToneState) -> None:
        self.memory.reserved_bytes -= state.parameters.frames
        super().release(state)


async def test_request_without_free_memory_waits_until_others_finish(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", tone_parameters("a", 2))
    await gate.reached()
    b, large, equal = [
        submit(engine, "", tone_parameters(*arguments)) for arguments in [("b", 3), ("large", 5), ("equal", 5)]
    ]
    gate.open()
    samples = await asyncio.gather(*map(read, (a, b, large, equal)))
    assert [len(each) for each in samples] == [1600, 2400, 4000, 4000]
    assert model.prefilled == ["a", "b", "large", "equal"]
    assert model.rejected == ["large", "large", "equal"], "prefill must be tried once per sequence that left"
    assert large.stage is Stage.GENERATING
    await idle(engine)
    assert model.memory.reserved_bytes == 0


async def test_small_requests_overtake_one_that_waits_for_memory_but_not_forever(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", tone_parameters("a", 2))
    await gate.reached()
    names = ["large", *(f"small {number:02}" for number in range(2 * MAX_OVERTAKES))]
    handles = [submit(engine, "", tone_parameters(name, 5 if name == "large" else 1)) for name in names]
    gate.open()
    await asyncio.gather(read(a), *map(read, handles))
    assert model.prefilled.index("large") == 1 + MAX_OVERTAKES
    assert sorted(model.prefilled) == ["a", *names]


async def test_admission_out_of_memory_waits_for_others_and_says_what_it_needs_if_alone(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["a", 2] = Gate()
    a = submit(engine, "", tone_parameters("a", 3))
    await gate.reached()
    model.at["b", 0] = fail_with(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"))
    b = submit(engine, "", tone_parameters("b"))
    gate.open()
    assert len(await read(a)) == 3 * BLOCK_FRAMES
    with pytest.raises(
        ResourceExhausted, match=r"before the first step, where it needed 2\.00 GiB more; reduce"
    ) as caught:
        await read(b)
    assert caught.value.reason == "MODEL_OUT_OF_MEMORY"
    assert model.prefilled == ["a", "b", "b"], "once beside a, once alone"


async def test_status_reports_reserved_memory(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    assert (engine.status().kv_reserved_bytes, engine.status().kv_limit_bytes) == (0, 0)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", tone_parameters("a", 2))
    await gate.reached()
    assert (engine.status().kv_reserved_bytes, engine.status().kv_limit_bytes) == (1600, 4000)
    gate.open()
    await read(a)


async def test_request_larger_than_the_memory_fails_before_it_starts(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    first, second = Gate(), Gate()
    model.at["a", 1], model.at["a", 3] = first, second
    a = submit(engine, "", tone_parameters("a", 5))
    await first.reached()
    large = submit(engine, "", tone_parameters("large", 6))
    first.open()
    await second.reached()
    with pytest.raises(TooLarge, match=r"duration_seconds: at most 0\.5 s fit") as caught:
        await large.wait_until_started()
    assert (caught.value.field, caught.value.retry_after_seconds) == ("duration_seconds", 60)
    second.open()
    assert len(await read(a)) == 4000


async def test_request_without_free_memory_fails_if_no_other_runs(start_engine, model):
    engine = await start_engine(model)
    model.at["a", 0] = fail_with(ResourceExhausted("another program uses it", reason="KV_MEMORY"))
    with pytest.raises(ResourceExhausted, match="another program"):
        await read(submit(engine, "", tone_parameters("a")))


async def test_cancel_while_waiting_for_memory_lets_the_next_request_in(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    first, second = Gate(), Gate()
    model.at["a", 1], model.at["a", 3] = first, second
    a = submit(engine, "", tone_parameters("a", 4))
    await first.reached()
    b, c = submit(engine, "", tone_parameters("b", 3)), submit(engine, "", tone_parameters("c", 2))
    first.open()
    await second.reached()
    assert (model.rejected, engine.status().waiting) == (["b", "c"], 2)
    b.cancel()
    second.open()
    assert len(await read(c)) == 1600
    assert len(await read(a)) == 3200
    assert "b" not in model.prefilled


async def test_cancel_of_a_running_request_frees_memory_for_a_waiting_one(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    first, second = Gate(), Gate()
    model.at["a", 1], model.at["a", 3] = first, second
    a = submit(engine, "", tone_parameters("a", 5))
    await first.reached()
    b = submit(engine, "", tone_parameters("b", 2))
    first.open()
    await second.reached()
    assert model.rejected == ["b"]
    a.cancel()
    second.open()
    assert len(await read(b)) == 1600


async def test_cancel_during_a_rejected_prefill_drops_the_request(start_engine):
    model = BoundedModel(5 * BLOCK_FRAMES)
    engine = await start_engine(model)
    first = model.at["a", 1] = Gate()
    a = submit(engine, "", tone_parameters("a", 4))
    await first.reached()
    prefill_gate = Gate()

    def reject() -> None:
        prefill_gate()
        raise ResourceExhausted("no room", reason="KV_MEMORY")

    model.at["b", 0] = reject
    b = submit(engine, "", tone_parameters("b", 1))
    first.open()
    await prefill_gate.reached()
    b.cancel()
    prefill_gate.open()
    assert len(await read(a)) == 3200
    await idle(engine)
    assert model.prefilled.count("b") == 1
    assert (engine.status().running, engine.status().waiting) == (0, 0)


async def test_hundred_requests_run_in_order_and_leak_no_memory(start_engine):
    model = BoundedModel(12 * BLOCK_FRAMES)
    engine = await start_engine(model, max_batch_size=4, max_waiting=100)

    async def serve(names: range) -> int:
        handles = [submit(engine, "", tone_parameters(f"{name:03}", 4)) for name in names]
        samples = await asyncio.gather(*map(read, handles))
        assert all(len(each) == 4 * BLOCK_FRAMES for each in samples)
        del handles, samples
        await idle(engine)
        assert model.prefilled == [*(f"{name:03}" for name in names), "last"]
        for record in (model.batches, model.prefilled, model.received, model.released, model.rejected):
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
    audio_bytes = 4 * BLOCK_FRAMES * 2 * 4  # One request. asyncio's set of tasks keeps 11 kB from its largest size.
    assert after_all - after_ten < audio_bytes, f"{after_all - after_ten} bytes"
