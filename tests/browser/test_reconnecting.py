"""Listening across connections that break and servers that are killed: what was heard goes on where it was, sample for
sample, and another attempt starts over."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.support.cut_connection import Forwarder, forwarding_to
from tests.support.studio_page import compose, wait_for_frames, wait_for_state
from tests.support.studio_processes import SERVER, STUDIO, StudioProcesses, studio_processes
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

RATE = 32_000
SECONDS = 90
SLOW_BYTES_PER_SECOND = 4 << 20
"""So that the connection is busy for seconds: a take has 23 MB."""
AWAY = ("status 50[0-9]", "Failed to load resource", "request failed", "net::ERR_")
"""What the browser says of connections that break."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def studio(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StudioProcesses]:
    """Its leases are short, so that a killed server's work is soon taken up again."""
    async with studio_processes(
        tmp_path_factory.mktemp("studio"), DGX_MUSIC_LEASE_SECONDS="3", DGX_MUSIC_LEASE_SWEEP_SECONDS="0.2"
    ) as processes:
        yield processes


async def begin(page: Page, seed: int) -> str:
    """Starts a take, and returns its id when a part of it has been heard."""
    (generation_id,) = await compose(page, "drum and bass at 172 BPM in F minor", duration=SECONDS, seed=seed)
    await wait_for_frames(page, generation_id, RATE)
    return generation_id


async def test_cut_connection_of_the_browser(open_studio: OpenPage, studio: StudioProcesses) -> None:
    async with forwarding_to(studio.studio_address) as forwarder:
        watched = await open_studio(url=f"http://{forwarder.address}")
        watched.allow(*AWAY)
        generation_id = await cut_while_heard(watched.page, forwarder, seed=11)
        await wait_for_frames(watched.page, generation_id, SECONDS * RATE)
        assert await watched.captured_samples(generation_id) == await studio.samples(generation_id)
        await wait_for_state(watched.page, "Finished")  # The watch has been resumed too.
        starts = [int(found) for one in watched.requests for found in re.findall(r"/live\?start_frame=(\d+)", one)]
        assert starts[0] == 0
        assert len([start for start in starts if start >= 4 * RATE]) >= 3, starts


async def cut_while_heard(page: Page, forwarder: Forwarder, seed: int) -> str:
    """Starts a take, and cuts all connections three times while its samples arrive."""
    forwarder.bytes_per_second = SLOW_BYTES_PER_SECOND
    generation_id = await begin(page, seed)
    for seconds in (4, 8, 12):
        await wait_for_frames(page, generation_id, seconds * RATE)
        forwarder.cut()
    forwarder.restore()
    return generation_id


async def test_studio_killed_and_started_again(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio()
    watched.allow(*AWAY)
    generation_id = await begin(watched.page, seed=12)
    await studio.kill(STUDIO)
    await expect(watched.page.locator("#now")).to_contain_text("connection was lost")
    await studio.start(STUDIO)
    await wait_for_frames(watched.page, generation_id, SECONDS * RATE)
    assert await watched.captured_samples(generation_id) == await studio.samples(generation_id)


async def test_server_killed_while_it_generates(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio()
    watched.allow(*AWAY)
    (generation_id,) = await compose(watched.page, "techno at 130 BPM", duration=600, seed=13)
    await wait_for_frames(watched.page, generation_id, RATE)
    await studio.kill(SERVER)
    await studio.start(SERVER)
    await wait_for_state(watched.page, "Finished")
    finished = await studio.get(generation_id)
    assert finished.attempt == 2
    await wait_for_frames(watched.page, generation_id, 600 * RATE)
    assert await watched.captured_samples(generation_id) == await studio.samples(generation_id)
