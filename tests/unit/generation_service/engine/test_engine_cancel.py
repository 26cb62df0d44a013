"""Cancellation of a request at each point of its life, without effect on the others."""

from __future__ import annotations

import numpy as np
import pytest

from dgx_music.errors import (
    Aborted,
)
from generation_service.engine.sequence import Stage
from tests.support.engine_calls import idle, read, submit
from tests.support.tone_model import Gate, ToneModel, tone, tone_parameters


async def test_cancel_frees_the_place_at_the_next_step(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["a", 2] = Gate()
    a, b = submit(engine, "", tone_parameters("a", 50)), submit(engine, "", tone_parameters("b", 6, seed=300))
    await gate.reached()
    a.cancel()
    gate.open()
    assert np.array_equal(await read(b), tone(tone_parameters("b", 6, seed=300)))
    assert [batch for batch in model.batches if "a" in batch] == model.batches[:2]
    assert model.released[0] == "a"
    with pytest.raises(Aborted, match="cancelled"):
        await anext(a)
    await idle(engine)
    assert engine.status().running == 0


async def test_cancel_while_queued_leaves_the_queue_at_once(start_engine, model):
    engine = await start_engine(model, max_batch_size=1)
    gate = model.at["a", 1] = Gate()
    a, b = submit(engine, "", tone_parameters("a", 1)), submit(engine, "", tone_parameters("b", 1))
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
    a = submit(engine, "", tone_parameters("a"))
    await gate.reached()
    assert a.stage is Stage.ENCODING_PROMPT
    a.cancel()
    with pytest.raises(Aborted):
        await a.wait_until_started()
    gate.open()
    await idle(engine)
    await model.release_of("a")
    assert model.batches == [["last"]]


async def test_cancel_during_the_last_step_aborts_the_request(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["a", 2] = Gate()
    a = submit(engine, "", tone_parameters("a", 2))
    await gate.reached()
    a.cancel()
    gate.open()
    await idle(engine)
    with pytest.raises(Aborted):
        await anext(a)
    assert engine.status().running == 0


async def test_cancel_applies_to_a_later_batch_of_the_same_round(start_engine):
    one, two = ToneModel("one"), ToneModel("two")
    engine = await start_engine(one, two)
    first, gate = Gate(), Gate()
    one.at["a", 1], one.at["a", 3] = first, gate
    a = submit(engine, "one", tone_parameters("a", 4))
    await first.reached()
    b = submit(engine, "two", tone_parameters("b", 50))
    first.open()
    await gate.reached()  # Both models are in this round, and "one" is stepped first.
    steps = len(two.batches)
    b.cancel()
    gate.open()
    await read(a)
    assert steps == 1
    assert len(two.batches) == steps


async def test_cancel_after_completion_drops_unread_blocks(start_engine, model):
    engine = await start_engine(model)
    a = submit(engine, "", tone_parameters("a", 2))
    await anext(a)
    await idle(engine)
    a.cancel()
    with pytest.raises(StopAsyncIteration):
        await anext(a)
