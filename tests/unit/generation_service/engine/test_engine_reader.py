"""Readers: a slow one pauses its request, and one that stalls cancels it."""

from __future__ import annotations

import asyncio

import pytest

from dgx_music.errors import (
    Aborted,
)
from tests.support.engine_calls import idle, read, submit
from tests.support.tone_model import BLOCK_FRAMES, tone_parameters


async def test_slow_reader_pauses_only_its_own_sequence(start_engine, model):
    engine = await start_engine(model, buffer_seconds=0.25)  # 2000 frames, so the third block fills it.
    slow, quick = submit(engine, "", tone_parameters("slow", 8)), submit(engine, "", tone_parameters("quick", 20))
    await slow.wait_until_started()
    assert len(await read(quick)) == 20 * BLOCK_FRAMES
    await idle(engine)
    assert slow.frames_delivered == 3 * BLOCK_FRAMES
    assert engine.status().running == 1
    await anext(slow)  # 1600 frames remain, which leaves room for one more block.
    await idle(engine)
    assert slow.frames_delivered == 4 * BLOCK_FRAMES
    assert len(await read(slow)) == 7 * BLOCK_FRAMES


async def test_stalled_reader_cancels_the_request(start_engine, model):
    engine = await start_engine(model, buffer_seconds=0.1, stall_seconds=0.05)
    stalled = submit(engine, "", tone_parameters("stalled"))
    await stalled.wait_until_started()
    await asyncio.wait_for(model.release_of("stalled"), 60)
    with pytest.raises(Aborted, match=r"the audio was not read for 0\.05 s"):
        await anext(stalled)


async def test_reader_that_is_busy_with_other_audio_is_not_taken_for_lost(start_engine, model):
    engine = await start_engine(model, buffer_seconds=0.1)
    handle = submit(engine, "", tone_parameters("a", 3))
    await idle(engine)
    assert handle._stall_timer is not None
    with handle.read_later():
        await anext(handle)
        await idle(engine)
        assert (handle.frames_delivered, handle._stall_timer) == (2 * BLOCK_FRAMES, None)
    assert handle._stall_timer is not None
    assert len(await read(handle)) == 2 * BLOCK_FRAMES


async def test_reading_in_time_stops_the_stall_timer(start_engine, model):
    engine = await start_engine(model, buffer_seconds=0.1)
    handle = submit(engine, "", tone_parameters("a", 3))
    await idle(engine)
    timer = handle._stall_timer
    assert not timer.cancelled()
    async for _ in handle:
        await idle(engine)
    assert timer.cancelled()
    assert handle.progress == 1.0
