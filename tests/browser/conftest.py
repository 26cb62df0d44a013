"""A browser, a server with a Studio beside it, and pages that fail their test if anything goes wrong in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.support.chromium import chromium
from tests.support.studio_processes import StudioProcesses, studio_processes
from tests.support.tone_server import tone_server
from tests.support.watched_page import OpenPage, WatchedPage, open_page

TIMEOUT_MILLISECONDS = 30_000
"""Of a step in a page: a busy machine should not fail a test."""

expect.set_options(timeout=TIMEOUT_MILLISECONDS)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def studio(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StudioProcesses]:
    """A server and a Studio on a data directory of the module's own."""
    async with studio_processes(tmp_path_factory.mktemp("studio")) as processes:
        yield processes


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tone_studio(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StudioProcesses]:
    """A Studio on servers whose model can do everything, which `sketch` can't."""
    with tone_server(tmp_path_factory.mktemp("tone")) as server:
        async with studio_processes(tmp_path_factory.mktemp("studio"), server.address) as processes:
            yield processes


@pytest_asyncio.fixture(loop_scope="session")
async def open_studio(browser: Browser, studio: StudioProcesses) -> AsyncIterator[OpenPage]:
    """Opens a path of the Studio, or of the `url` that leads to it, in a context of its own, with the options of
    Playwright's new_context. What goes wrong in a page fails the test at its end, unless the test allows it."""
    opened: list[WatchedPage] = []
    async with AsyncExitStack() as stack:

        async def open_one(path: str = "/", *, url: str = "", **options: object) -> WatchedPage:
            context = await browser.new_context(**{"accept_downloads": True, "reduced_motion": "reduce", **options})  # type: ignore[arg-type]
            stack.push_async_callback(context.close)
            context.set_default_timeout(TIMEOUT_MILLISECONDS)
            opened.append(await open_page(context, (url or studio.url) + path))
            return opened[-1]

        yield open_one
    for page in opened:
        page.check()
