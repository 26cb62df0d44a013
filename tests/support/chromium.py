"""Finds the browser of the tests and starts it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, async_playwright

VARIABLE = "DGX_MUSIC_TEST_BROWSER"
REQUIRED_VARIABLE = "DGX_MUSIC_TEST_BROWSER_REQUIRED"
"""Set by `make test-browser`: a missing browser is an error then."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # So that tests hear without a click. One test starts a browser without it.
    "--autoplay-policy=no-user-gesture-required",
)


def browser_path() -> str:
    """Returns the path of Chromium. Without one, skips the test, or fails it where a browser is required."""
    if path := os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, NAMES)), None):
        return path
    problem = f"found no browser: install Chromium, or set {VARIABLE} to the path of Chromium or Chrome"
    if os.environ.get(REQUIRED_VARIABLE):
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)


@asynccontextmanager
async def chromium(*, without: tuple[str, ...] = ()) -> AsyncIterator[Browser]:
    """Runs the browser without a window while the block runs, `without` some of its usual arguments."""
    path = browser_path()
    arguments = [argument for argument in ARGUMENTS if argument not in without]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()
