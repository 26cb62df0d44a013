"""Steps that fail, and steps that yield nothing: which sequences end, and how the others go on."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from dgx_music.errors import ServiceError, Unavailable
from generation_service.engine import batch_runner
from generation_service.engine.batch_runner import GOOD_STEPS, MAX_EMPTY_STEPS
from generation_service.models.base import GenerationParameters
from tests.support.engine_calls import read, submit
from tests.support.tone_model import (
    BLOCK_FRAMES,
    RATE_HZ,
    Gate,
    ManualClock,
    ToneModel,
    ToneState,
    fail_with,
    tone,
    tone_parameters,
)


class LateModel(ToneModel):
    """Yields nothing in its first steps, as a model that runs ahead of its device."""

    def __init__(self, empty_steps: int) -> None:
        super().__init__()
        self.empty_steps = empty_steps
        self.empty_batches: list[list[str]] = []

    def step(self, states: Sequence[ToneState]) -> list[np.ndarray | ServiceError]:
        if self.empty_steps:
            self.empty_steps -= 1
            self.empty_batches.append([state.parameters.prompt for state in states])
            self.at.get(("empty", 0), lambda: None)()
            return [np.zeros((0, 2), np.float32) for _ in states]
        return super().step(states)


@dataclass
class BusyState(ToneState):
    """A state that reports progress."""

    progress: float = 0.0


class BusyModel(ToneModel):
    """Works for many steps before it has audio, and reports its progress: by so much in each step."""

    def __init__(self, progress: float) -> None:
        super().__init__()
        self.progress = progress

    def prefill(self, parameters: GenerationParameters) -> BusyState:
        super().prefill(parameters)
        return BusyState(parameters)

    def step(self, states: Sequence[ToneState]) -> list[np.ndarray | ServiceError]:
        [state] = states
        assert isinstance(state, BusyState)
        if state.progress < 1.0:
            state.progress = min(1.0, state.progress + self.progress)
            self.at.get(("progress", round(100 * state.progress)), lambda: None)()
            return [np.zeros((0, 2), np.float32)]
        return super().step(states)


async def start_together(engine, model, names, blocks=6):
    """Submits requests that are in one batch from its second step on, and the request that holds up the first."""
    gate = model.at["first", 1] = Gate()
    handles = [submit(engine, "", tone_parameters("first", blocks))]
    await gate.reached()
    handles += [submit(engine, "", tone_parameters(name, blocks, seed=100 + i)) for i, name in enumerate(names)]
    gate.open()
    return handles


async def test_failed_batch_is_split_in_halves_until_the_bad_request_is_alone(start_engine, model):
    engine = await start_engine(model)
    names = [f"{number}" for number in range(7)]
    model.at["5", 3] = fail_with(ValueError("no such note"))
    handles = await start_together(engine, model, names)
    results = await asyncio.gather(*map(read, handles), return_exceptions=True)
    for number, (name, samples) in enumerate(zip(names, results[1:], strict=True)):
        if name == "5":
            assert str(samples) == "model 'tone' failed at step 3: ValueError: no such note"
        else:
            assert np.array_equal(samples, tone(tone_parameters(name, 6, seed=100 + number)))
    sizes = [len(batch) for batch in model.batches if "5" in batch]
    assert sizes == [8] * 3 + [4] * 3 + [2] * 3 + [1] * 3
    assert model.prefilled.count("0") == 2, "the sound half restarts only once"
    assert sorted(model.released) == sorted(model.prefilled)


async def test_halves_return_to_the_shared_batch_after_good_steps(start_engine, model):
    engine = await start_engine(model, buffer_seconds=100)
    failures = iter([ValueError()])
    model.at["a", 2] = lambda: [fail_with(error)() for error in failures]
    handles = await start_together(engine, model, ["a"], blocks=60)
    samples = await asyncio.gather(*map(read, handles))
    assert np.array_equal(samples[1], tone(tone_parameters("a", 60, seed=100)))
    alone = [batch for batch in model.batches if batch == ["a"]]
    assert len(alone) - 1 in (1 + GOOD_STEPS, 2 + GOOD_STEPS, 3 + GOOD_STEPS)
    assert ["first", "a"] in [sorted(batch, reverse=True) for batch in model.batches[-30:]]


async def test_batch_that_fails_again_and_again_stays_apart_longer(start_engine, model):
    engine = await start_engine(model, buffer_seconds=100)

    def fail_in_a_batch() -> None:
        if len(model.batches[-1]) > 1:
            raise ValueError("too many rows")

    for step in range(1, 200):
        model.at["a", step] = fail_in_a_batch
    handles = await start_together(engine, model, ["a"], blocks=200)
    samples = await asyncio.gather(*map(read, handles))
    assert [len(each) for each in samples] == [200 * BLOCK_FRAMES] * 2
    failed = sum(len(batch) > 1 for batch in model.batches)
    assert failed in (3, 4)  # After 1, 1 + 16, + 32 and + 64 steps.


async def start_newcomer(engine, model):
    """Submits a request that is admitted into a batch of ten. Returns all handles."""
    handles = await start_together(engine, model, [f"{number}" for number in range(9)])
    gate = model.at["8", 4] = Gate()
    await gate.reached()
    handles.append(submit(engine, "", tone_parameters("newcomer", 6)))
    gate.open()
    return handles


async def test_newcomer_takes_three_steps_for_one_of_the_others_until_it_has_audio(start_engine):
    model = LateModel(0)
    engine = await start_engine(model, max_batch_size=16)
    model.at["newcomer", 0] = lambda: setattr(model, "empty_steps", 5)
    handles = await start_newcomer(engine, model)
    assert [len(each) for each in await asyncio.gather(*map(read, handles))] == [6 * BLOCK_FRAMES] * 11
    assert [len(batch) for batch in model.empty_batches] == [1, 1, 1, 11, 1]
    assert [len(batch) for batch in model.batches[5:8]] == [1, 11, 10], "one has ended"
    assert model.empty_batches[0] == model.batches[5] == ["newcomer"]


async def test_newcomer_that_fails_ahead_leaves_the_others_as_they_are(start_engine, model):
    engine = await start_engine(model, max_batch_size=16)
    model.at["newcomer", 1] = fail_with(ValueError("no such note"))
    *handles, newcomer = await start_newcomer(engine, model)
    assert [len(each) for each in await asyncio.gather(*map(read, handles))] == [6 * BLOCK_FRAMES] * 10
    with pytest.raises(ServiceError, match="at step 1: ValueError: no such note"):
        await read(newcomer)
    assert len(model.prefilled) == 11, "nothing is restarted"


async def test_newcomers_that_fail_ahead_together_stay_apart(start_engine, model):
    engine = await start_engine(model, max_batch_size=32)
    handles = await start_together(engine, model, [f"{number}" for number in range(20)])
    gate = model.at["8", 4] = Gate()
    await gate.reached()
    model.at["bad", 1] = fail_with(ValueError("no such note"))
    handles += [submit(engine, "", tone_parameters(name, 6)) for name in ("good", "bad")]
    gate.open()
    samples = await asyncio.gather(*map(read, handles), return_exceptions=True)
    assert str(samples.pop()) == "model 'tone' failed at step 1: ValueError: no such note"
    assert [len(each) for each in samples] == [6 * BLOCK_FRAMES] * 22
    assert max(len(batch) for batch in model.batches if "bad" in batch) == 2


class Tensor:
    """Something that a failed call leaves in its frame."""


async def test_what_filled_the_memory_is_freed_before_a_restart(start_engine, model):
    engine = await start_engine(model)
    alive: list[int] = []
    left: list[weakref.ref[Tensor]] = []

    def fill_memory() -> None:
        tensor = Tensor()
        left.append(weakref.ref(tensor))
        model.at["a", 0] = lambda: alive.append(sum(reference() is not None for reference in left))
        model.at.pop(("a", 2))
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model.at["a", 2] = fill_memory
    handles = await start_together(engine, model, ["a"])
    assert [len(each) for each in await asyncio.gather(*map(read, handles))] == [6 * BLOCK_FRAMES] * 2
    assert alive == [0]


async def test_row_that_fails_alone_leaves_the_others_as_they_are(start_engine, model):
    engine = await start_engine(model)
    model.shapes["bad"] = lambda block: ServiceError("the logits are not finite", reason="MODEL_FAILED")
    handles = await start_together(engine, model, ["a", "bad"])
    first, a, bad = await asyncio.gather(*map(read, handles), return_exceptions=True)
    assert np.array_equal(a, tone(tone_parameters("a", 6, seed=100)))
    assert len(first) == 6 * BLOCK_FRAMES
    assert str(bad) == "the logits are not finite"
    assert sorted(model.prefilled) == ["a", "bad", "first"], "nothing is restarted"


async def test_row_with_a_fatal_error_stops_the_engine(start_engine, model):
    engine = await start_engine(model)
    error = ServiceError("the codec failed", reason="MODEL_FAILED")
    error.__cause__ = RuntimeError("CUDA error: unspecified launch failure")
    model.shapes["bad"] = lambda block: error
    with pytest.raises(Unavailable, match="the engine stopped: ServiceError: the codec failed"):
        await read(submit(engine, "", tone_parameters("bad")))


async def test_wrong_number_of_blocks_fails_the_request_not_the_engine(start_engine, model):
    engine = await start_engine(model)
    step = model.step
    model.step = lambda states: step(states)[1:]
    with pytest.raises(ServiceError, match="at step 1: ValueError: 0 blocks for 1 states"):
        await read(submit(engine, "", tone_parameters("a")))
    engine.check()


async def test_model_that_never_ends_fails_its_request(start_engine, monkeypatch):
    model = LateModel(10**9)
    engine = await start_engine(model)
    monkeypatch.setattr(batch_runner, "MAX_SILENT_SECONDS", 0.0)
    with pytest.raises(ServiceError, match=f"at step {MAX_EMPTY_STEPS + 1}: 0 frames, expected 3200") as caught:
        await read(submit(engine, "", tone_parameters("a")))
    assert caught.value.reason == "MODEL_OUTPUT"


async def test_steps_that_report_progress_are_no_hang(start_engine, monkeypatch):
    monkeypatch.setattr(batch_runner, "MAX_SILENT_SECONDS", 0.0)
    engine = await start_engine(BusyModel(1 / (MAX_EMPTY_STEPS + 500)))
    assert len(await read(submit(engine, "", tone_parameters("a")))) == 4 * BLOCK_FRAMES


async def test_steps_that_report_no_further_progress_are_one(start_engine, monkeypatch):
    monkeypatch.setattr(batch_runner, "MAX_SILENT_SECONDS", 0.0)
    engine = await start_engine(BusyModel(0.0))
    with pytest.raises(ServiceError, match="0 frames, expected 3200"):
        await read(submit(engine, "", tone_parameters("a")))


async def test_progress_is_what_the_model_reports(start_engine):
    model = BusyModel(0.01)
    gate = model.at["progress", 50] = Gate()
    engine = await start_engine(model)
    handle = submit(engine, "", tone_parameters("a"))
    await gate.reached()
    assert handle.progress == pytest.approx(0.49)
    gate.open()
    await read(handle)
    assert handle.progress == 1.0


async def test_fast_model_may_return_nothing_from_many_steps(start_engine):
    model = LateModel(MAX_EMPTY_STEPS + 500)
    engine = await start_engine(model)
    assert len(await read(submit(engine, "", tone_parameters("a")))) == 4 * BLOCK_FRAMES


async def test_steps_without_audio_do_not_wake_the_event_loop(start_engine):
    model = LateModel(500)
    engine = await start_engine(model)
    calls = engine._device_thread._calls
    wake_ups: list[int] = []
    call_on_loop = calls._call_on_loop
    calls._call_on_loop = lambda function, batch: (wake_ups.append(len(batch)), call_on_loop(function, batch))
    await asyncio.gather(*(read(submit(engine, "", tone_parameters(name))) for name in "abc"))
    assert len(model.batches) <= 6
    assert len(wake_ups) <= 3 + len(model.batches)


async def test_slow_model_may_take_its_time(start_engine):
    clock = ManualClock()
    model = LateModel(20)
    model.at["empty", 0] = clock.advance(30.0)
    engine = await start_engine(model, clock=clock)
    assert len(await read(submit(engine, "", tone_parameters("a")))) == 4 * BLOCK_FRAMES


async def test_speed_of_a_sequence_includes_the_steps_without_audio(start_engine):
    clock = ManualClock()
    model = LateModel(100)
    model.at["empty", 0] = clock.advance(1.0)
    engine = await start_engine(model, clock=clock, buffer_seconds=100)
    blocks = round(10 * RATE_HZ / BLOCK_FRAMES)
    await read(submit(engine, "", tone_parameters("a", blocks)))
    assert engine._shared.throughput.sequence_speed("tone") == pytest.approx(0.17, abs=0.02), "the latest count more"
