"""The pictures of the Studio in the docs. `make screenshots` writes them; otherwise they are only taken."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image
from playwright.async_api import Page

from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.studio_page import wait_for_state, wait_until_drawn
from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

VARIABLE = "DGX_MUSIC_SCREENSHOTS"
"""The folder that `make screenshots` has them written to."""
MAX_BYTES = 150_000
QUALITY = 82
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 360, "height": 740}
PHONE_SCALE = 2
TAKES = (
    ("ambient with soft strings in D major", 20.0, 3, 5),
    ("drum and bass at 172 BPM in F minor", 16.0, 8, 0),
    ("synthwave at 100 BPM in E minor with a bright lead", 20.0, 5, 4),
    ("house at 124 BPM in A minor", 16.0, 2, 3),
    ("bossa nova with a clean guitar at 130 BPM", 20.0, 9, 4),
    ("lo-fi hip hop with a warm piano at 84 BPM in A minor", 20.0, 1, 0),
    ("lo-fi hip hop with a warm piano at 84 BPM in A minor", 20.0, 2, 5),
    ("lo-fi hip hop with a warm piano at 84 BPM in A minor", 20.0, 7, 4),
)
"""Prompt, seconds, seed and rating."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def takes(studio: StudioProcesses) -> list[str]:
    """The ids of takes as a user might have them."""
    ids = [await studio.generate(prompt, seconds, seed=seed) for prompt, seconds, seed, _ in TAKES]
    for generation_id, (_, _, _, rating) in zip(ids, TAKES, strict=True):
        request = storage.RateGenerationRequest(id=generation_id, rating=rating)
        await studio.music.RateGeneration(request, timeout=60)
    return ids


async def keep(page: Page, name: str, tmp_path: Path) -> None:
    """Takes a picture, and writes it as WebP."""
    picture = Image.open(io.BytesIO(await page.screenshot()))
    levels = np.asarray(picture.convert("L"))
    assert levels.std() > 5, "nothing is to be seen"
    folder = Path(os.environ.get(VARIABLE) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"{name}.webp", quality=QUALITY, method=6)
    assert (folder / f"{name}.webp").stat().st_size <= MAX_BYTES


async def show_take(page: Page) -> None:
    """Waits until the selected take is drawn, and goes to a place in it."""
    await wait_for_state(page, "Finished")
    wave = page.get_by_role("slider", name="Position in the take")
    await page.wait_for_function("() => document.querySelector('#now .wave-view').getAttribute('aria-valuemax') > 1")
    box = await wave.bounding_box()
    assert box
    await page.mouse.click(box["x"] + box["width"] * 0.38, box["y"] + box["height"] / 2)
    await page.mouse.move(0, 0)
    await wait_until_drawn(page, ".take-row canvas", 1)


@pytest.mark.parametrize("theme", ["dark", "light"])
async def test_studio(open_studio: OpenPage, takes: list[str], tmp_path: Path, theme: str) -> None:
    watched = await open_studio(f"/#/take/{takes[6]}", viewport=WIDE, color_scheme=theme)
    page = watched.page
    await page.get_by_role("textbox", name="Prompt", exact=True).first.fill(
        "lo-fi hip hop with a warm piano and vinyl crackle, 84 BPM, A minor"
    )
    await show_take(page)
    await page.evaluate("document.activeElement.blur()")
    await keep(page, f"studio-{theme}", tmp_path)


async def test_phone(open_studio: OpenPage, takes: list[str], tmp_path: Path) -> None:
    watched = await open_studio(
        f"/#/take/{takes[6]}",
        viewport=PHONE,
        color_scheme="dark",
        is_mobile=True,
        has_touch=True,
        device_scale_factor=PHONE_SCALE,
    )
    await show_take(watched.page)
    await keep(watched.page, "studio-phone", tmp_path)


async def test_comparison(open_studio: OpenPage, takes: list[str], tmp_path: Path) -> None:
    watched = await open_studio("/", viewport=WIDE, color_scheme="dark")
    page = watched.page
    await page.locator("#history .take-row").first.wait_for()
    await page.evaluate(
        "async (ids) => (await import('/static/js/state.js')).emit('compare-open', {ids})", list(reversed(takes[5:]))
    )
    await page.locator(".compare-play:not([disabled])").wait_for(timeout=120_000)
    await page.evaluate("document.activeElement.blur()")
    await wait_until_drawn(page, "#compare canvas[role=img]", 20)
    await keep(page, "compare-dark", tmp_path)
