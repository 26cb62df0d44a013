"""Requests that are suspended: at each point of their life, without effect on the others, and gone on with later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from generation_service.engine.suspension.sealed_checkpoint import GenerationSuspended
from tests.support.engine_calls import idle, read, submit
from tests.support.tone_model import BLOCK_FRAMES, Gate, ResumingToneModel, ToneModel, tone, tone_parameters


async def read_until_suspended(handle):
    """Returns the samples that it yields before that, and its checkpoint."""
    blocks = []
    try:
        async for block in handle:
            blocks.append(block)
    except GenerationSuspended as suspended:
        return np.concatenate([np.zeros((0, 2), np.float32), *blocks]), suspended.checkpoint
    raise AssertionError("it came to its end")


async def test_suspended_request_goes_on_where_it_was(start_engine):
    model = ResumingToneModel()
    engine = await start_engine(model)
    gate = model.at["a", 2] = Gate()
    a, b = submit(engine, "", tone_parameters("a", 5)), submit(engine, "", tone_parameters("b", 6, seed=300))
    await gate.reached()
    a.suspend()
    gate.open()
    samples, checkpoint = await read_until_suspended(a)
    assert np.array_equal(samples, tone(tone_parameters("a", 2)))
    assert np.array_equal(await read(b), tone(tone_parameters("b", 6, seed=300)))
    assert model.released[0] == "a"

    again = submit(engine, "", replace(tone_parameters("a", 5), checkpoint=checkpoint))
    assert np.array_equal(await read(again), tone(tone_parameters("a", 5)))
    assert again.is_resumed
    assert model.resumed_from == [0, 0, 2 * BLOCK_FRAMES]
    await idle(engine)
    assert engine.status().running == 0


async def test_waiting_request_keeps_its_checkpoint(start_engine):
    model = ResumingToneModel()
    engine = await start_engine(model, max_batch_size=1)
    gate = model.at["a", 1] = Gate()
    a = submit(engine, "", tone_parameters("a", 1))
    b = submit(engine, "", replace(tone_parameters("b", 1), checkpoint=b"earlier"))
    await gate.reached()
    b.suspend()
    gate.open()
    samples, checkpoint = await read_until_suspended(b)
    assert (len(samples), checkpoint) == (0, b"earlier")
    await read(a)
    assert model.prefilled == ["a"]
    assert engine.status().waiting == 0


async def test_model_without_checkpoints_has_none(start_engine, model):
    engine = await start_engine(model)
    gate = model.at["a", 2] = Gate()
    a = submit(engine, "", tone_parameters("a", 5))
    await gate.reached()
    a.suspend()
    gate.open()
    _, checkpoint = await read_until_suspended(a)
    assert checkpoint == b""


async def test_checkpoint_of_another_request_is_ignored(start_engine):
    model = ResumingToneModel()
    engine = await start_engine(model)
    handle = submit(engine, "", replace(tone_parameters("a", 2), checkpoint=b"of another one"))
    assert np.array_equal(await read(handle), tone(tone_parameters("a", 2)))
    assert not handle.is_resumed
    assert model.resumed_from == [0]


async def test_failure_to_save_loses_what_was_done_and_nothing_else(start_engine, monkeypatch):
    def fail(model: ToneModel, state: object) -> bytes:
        raise ValueError("it has no room")

    model = ResumingToneModel()
    monkeypatch.setattr(ResumingToneModel, "save_checkpoint", fail)
    engine = await start_engine(model)
    gate = model.at["a", 2] = Gate()
    a = submit(engine, "", tone_parameters("a", 5))
    await gate.reached()
    a.suspend()
    gate.open()
    _, checkpoint = await read_until_suspended(a)
    assert checkpoint == b""
    assert np.array_equal(await read(submit(engine, "", tone_parameters("b", 2))), tone(tone_parameters("b", 2)))


async def test_suspending_after_the_end_does_nothing(start_engine, model):
    engine = await start_engine(model)
    a = submit(engine, "", tone_parameters("a", 2))
    await a.wait_until_started()
    assert np.array_equal(await read(a), tone(tone_parameters("a", 2)))
    a.suspend()
    assert await a.next_block() is None
