"""A waiting request that can't meet its deadline ends before it wastes the device's time."""

from __future__ import annotations

import pytest

from dgx_music.errors import DeadlineExceeded
from tests.support.engine_calls import read
from tests.support.tone_model import BLOCK_FRAMES, Gate, ManualClock, ToneModel, tone_parameters


class TimedModel(ToneModel):
    """Takes 0.1 s for each step of 0.1 s of audio, by a clock that only it moves."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock

    def step(self, states):
        self.clock.now += 0.1
        return super().step(states)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed_model(clock) -> TimedModel:
    return TimedModel(clock)


@pytest.fixture
async def engine(start_engine, timed_model, clock):
    """An engine with one place, whose speed is known: real time."""
    engine = await start_engine(timed_model, max_batch_size=1, buffer_seconds=100, clock=clock)
    await read(submit(engine, "first", 60))
    return engine


def submit(engine, name, blocks=4, deadline=None):
    return engine.submit(engine.catalog.get("").describe(), tone_parameters(name, blocks), deadline=deadline)


async def test_deadline_that_passes_in_the_queue_ends_the_request(engine, timed_model, clock):
    gate = timed_model.at["running", 3] = Gate()
    running = submit(engine, "running", 20)
    await gate.reached()
    late, patient = submit(engine, "late", 1, clock.now + 1.0), submit(engine, "patient", 1, clock.now + 60.0)
    gate.open()
    with pytest.raises(DeadlineExceeded, match=r"take at least|the deadline passed") as caught:
        await read(late)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert len(await read(running)) == 20 * BLOCK_FRAMES
    assert len(await read(patient)) == BLOCK_FRAMES
    assert "late" not in timed_model.prefilled


async def test_request_ends_as_soon_as_its_deadline_is_out_of_reach(engine, timed_model, clock):
    gate = timed_model.at["running", 10] = Gate()
    running = submit(engine, "running", 20)
    start = clock.now
    late = submit(engine, "late", 30, start + 2.95)  # At up to 1.5 times the speed measured, it takes 2 s.
    await gate.reached()
    assert not late._is_finished
    gate.open()
    with pytest.raises(
        DeadlineExceeded, match=r"3 s of audio take at least 2\.0 s at present, but the deadline is in 1"
    ):
        await read(late)
    await read(running)


async def test_hopeless_request_is_refused_at_once(engine, timed_model, clock):
    with pytest.raises(DeadlineExceeded, match=r"30 s of audio take at least 20\.0 s at present, .* is in 15\.0 s"):
        submit(engine, "a", 300, clock.now + 15.0)
    with pytest.raises(DeadlineExceeded, match="the deadline passed"):
        submit(engine, "a", 1, clock.now - 1.0)
    assert len(await read(submit(engine, "b", 30, clock.now + 2.1))) == 30 * BLOCK_FRAMES
    assert timed_model.prefilled == ["first", "b"]


async def test_deadline_passes_although_nothing_is_stepped(start_engine, model):
    engine = await start_engine(model, max_batch_size=1, buffer_seconds=0.1)
    paused = submit(engine, "paused", 50)
    await paused.wait_until_started()
    await anext(paused)
    late = submit(engine, "late", 1, engine._shared.clock() + 0.3)
    with pytest.raises(DeadlineExceeded, match="the deadline passed after the request had waited"):
        await read(late)
    paused.cancel()


async def test_speed_that_is_not_known_refuses_nothing(start_engine, clock):
    engine = await start_engine(TimedModel(clock), clock=clock)
    assert len(await read(submit(engine, "a", 30, clock.now + 0.01))) == 30 * BLOCK_FRAMES
