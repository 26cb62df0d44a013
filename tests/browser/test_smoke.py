"""The one test of the page that `make test` runs: it loads, shows its parts, and nothing goes wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser

from gateway.embedded.service_set import ALL
from gateway.studio.config import StudioSettings
from gateway.studio.server import serve_studio
from tests.support.embedded_services import embedded_services
from tests.support.watched_page import open_page

pytestmark = pytest.mark.asyncio(loop_scope="session")

REGIONS = ("compose", "now", "history")


async def test_page_loads_without_a_complaint(browser: Browser, tmp_path: Path) -> None:
    settings = StudioSettings.model_validate({"studio_listen": "127.0.0.1:0", "grace_seconds": 1})
    async with (
        embedded_services(tmp_path, ALL) as services,
        serve_studio(services.address, settings) as url,
        await browser.new_context() as context,
    ):
        watched = await open_page(context, url)
        assert await watched.page.title() == "DGX Music Studio"
        for region in REGIONS:
            await watched.page.locator(f"#{region}").wait_for()
        watched.check()
