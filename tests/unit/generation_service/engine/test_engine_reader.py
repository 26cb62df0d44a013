"""An engine's readers: who is slow is waited for, who is gone is given up."""

from __future__ import annotations

import asyncio

import pytest

from dgx_music.errors import (
    Aborted,
)
from tests.support.engine_calls import idle, read, submit
from tests.support.tone_model import BLOCK_FRAMES, ask


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
    await asyncio.wait_for(model.release_of("stalled"), 60)
    with pytest.raises(Aborted, match=r"nobody read the audio for 0\.05 s"):
        await anext(stalled)


async def test_reading_in_time_stops_the_stall_timer(start_engine, model):
    engine = await start_engine(model, buffer_seconds=0.1)
    handle = submit(engine, "", ask("a", 3))
    await idle(engine)
    timer = handle._stall_timer
    assert not timer.cancelled()
    async for _ in handle:
        await idle(engine)
    assert timer.cancelled()
    assert handle.progress == 1.0
