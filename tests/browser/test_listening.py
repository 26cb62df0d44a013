"""Generating and hearing a take in the page: the samples that it plays are those that were generated, bit for bit, also
across servers that go away."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dgx_music.generation.v1.generation_pb2 import GetEngineStatusRequest
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.cut_connection import Forwarder, forwarding_to
from tests.support.studio_page import compose, wait_for_frames, wait_for_state
from tests.support.studio_processes import SERVER, STUDIO, StudioProcesses, studio_processes
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

RATE = 32_000
AWAY = ("status 50[23]", "Failed to load resource", "request failed", "ERR_")
"""What the console says while a server is away."""


async def test_page_hears_the_samples_as_generated(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio()
    generation_id = await compose(watched.page, studio, "house at 124 BPM in A minor", seconds=4, seed=7)
    await wait_for_state(watched.page, "Completed")
    finished = await studio.wait_until_final(generation_id)
    assert (finished.state, finished.seed) == (storage.GENERATION_STATE_COMPLETED, 7)
    await wait_for_frames(watched.page, generation_id, 4 * RATE)
    heard = await watched.captured_samples(generation_id)
    assert heard == await studio.samples(generation_id)
    assert len(heard) == 4 * RATE * 2 * 4
