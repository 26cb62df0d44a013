"""The page on a phone, on a wide screen and at 200 % zoom: nothing is cut off, and nothing scrolls sideways."""

from __future__ import annotations

import pytest

from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

SIZES = {"phone": (360, 740), "tablet": (768, 1024), "zoomed 200 %": (640, 400), "wide": (1920, 1080)}
"""At 200 %, a window of 1280 × 800 has half as many CSS pixels in each direction."""
SMALLEST_TARGET = 24
"""CSS pixels, by WCAG 2.2's success criterion 2.5.8."""
CUT_OFF = """() => [...document.querySelectorAll("button, input, select, textarea, a, summary")]
  .filter((element) => element.checkVisibility({visibilityProperty: true, opacityProperty: true}))
  .filter((element) => !element.closest(".visually-hidden, .skip") && !element.matches("[type=file], [tabindex='-1']"))
  .map((element) => [element, element.getBoundingClientRect()])
  .filter(([element, box]) => box.width > 1 && (box.left < -1 || box.right > innerWidth + 1))
  .map(([element, box]) => `${element.outerHTML.slice(0, 120)} ${Math.round(box.left)}…${Math.round(box.right)}`)"""


@pytest.mark.parametrize("size", SIZES)
async def test_nothing_is_cut_off(open_studio: OpenPage, studio: StudioProcesses, size: str) -> None:
    width, height = SIZES[size]
    generation_id = await studio.generate("ambient in D major", 1.0)
    is_phone = size == "phone"
    watched = await open_studio(
        f"/#/take/{generation_id}", viewport={"width": width, "height": height}, has_touch=is_phone, is_mobile=is_phone
    )
    page = watched.page
    await page.locator("#now .now-prompt").get_by_text("ambient in D major").wait_for()
    assert not await watched.scrolls_sideways()
    assert await page.evaluate(CUT_OFF) == []
