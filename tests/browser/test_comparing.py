"""Takes compared in the page: level-matched, blind, ranked, with their pictures, and by keys alone."""

from __future__ import annotations

import re

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.axe_rules import accessibility_findings
from tests.support.studio_page import wait_until_drawn
from tests.support.studio_processes import SERVER, StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

READY = ".compare-play:not([disabled])"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def takes(studio: StudioProcesses) -> list[str]:
    """Three finished takes; the last is mono at 48 kHz, and shorter."""
    mono = {"channels": 1, "sample_rate_hz": 48_000}
    return [
        await studio.generate("unmistakable prompt 0", 6.0, seed=40),
        await studio.generate("unmistakable prompt 1", 6.0, seed=41),
        await studio.generate("unmistakable prompt 2", 4.0, seed=42, output=mono),
    ]


async def compare(page: Page, ids: list[str]) -> None:
    """Opens the comparison of takes as the history does."""
    opening = "async (ids) => (await import('/static/js/state.js')).emit('compare-open', { ids })"
    await page.evaluate(opening, ids)
    await page.locator(READY).wait_for()


async def saved_rankings(studio: StudioProcesses) -> list[storage.Comparison]:
    return list((await studio.music.ListComparisons(storage.ListComparisonsRequest())).comparisons)


async def test_takes_are_matched_to_the_quietest_and_pictures_are_drawn(
    open_studio: OpenPage, takes: list[str]
) -> None:
    page = (await open_studio(viewport={"width": 1400, "height": 1200})).page
    await compare(page, takes)
    compared = page.locator("#compare")
    await expect(compared.get_by_role("radio")).to_have_count(3)
    # A mono take comes from two loudspeakers, so that it is 3 dB louder than its figure.
    await expect(compared.get_by_role("radio").nth(2)).to_contain_text(re.compile(r"heard at .(2\.9|3\.[01]) dB"))
    await expect(compared.get_by_role("slider", name="Position")).to_have_attribute("aria-valuemax", "6.0")
    await expect(compared.get_by_role("img")).to_have_count(5)
    row = compared.get_by_role("row").filter(has=page.get_by_role("rowheader", name="A"))
    await expect(row.get_by_role("cell").first).to_contain_text(re.compile(r".\d+\.\d"))
    await wait_until_drawn(page, "#compare canvas[role=img]", 20)
    axis = await page.locator(".compare-axis").bounding_box()
    assert axis is not None
    await page.mouse.move(axis["x"] + axis["width"] / 2, axis["y"] + 20)
    await expect(compared.get_by_role("caption")).to_contain_text("Under the pointer, 0:03")
    await expect(row.get_by_role("cell").last).to_contain_text(re.compile(r"Hz: .?\d+ dB"))


async def test_keys_switch_loop_and_rank(open_studio: OpenPage, takes: list[str]) -> None:
    page = (await open_studio()).page
    await compare(page, takes)
    radios = page.get_by_role("radiogroup", name="Take that is heard").get_by_role("radio")
    for key, heard in (("2", 1), ("3", 2), ("ArrowRight", 0), ("ArrowLeft", 2), ("1", 0)):
        await page.keyboard.press(key)
        await expect(radios.nth(heard)).to_be_checked()
    await page.keyboard.press("Space")
    play = page.get_by_role("button", name="Pause", exact=True)
    await play.wait_for()
    await page.keyboard.press("l")
    await expect(page.get_by_role("button", name="Loop", exact=True)).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("Space")
    await page.get_by_role("button", name="Play", exact=True).wait_for()
    slider = page.get_by_role("slider", name="Position")
    await page.keyboard.press("Home")
    await expect(slider).to_have_attribute("aria-valuenow", "0.0")
    await page.keyboard.press(".")
    await expect(slider).to_have_attribute("aria-valuenow", "5.0")
    await slider.press("ArrowLeft")
    await expect(slider).to_have_attribute("aria-valuenow", "4.0")
    ranked = page.get_by_role("list", name="Ranking, best first").get_by_role("listitem")
    await page.keyboard.press("Shift+ArrowDown")
    await expect(ranked.first).to_contain_text("unmistakable prompt 1")
    move = page.get_by_role("button", name="Move C up")
    await move.press("Enter")
    await expect(ranked.nth(1)).to_contain_text("unmistakable prompt 2")
    await expect(move).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#compare")).to_be_hidden()


async def test_ranking_is_dragged(open_studio: OpenPage, takes: list[str]) -> None:
    page = (await open_studio(viewport={"width": 1400, "height": 1200})).page
    await compare(page, takes)
    ranked = page.get_by_role("list", name="Ranking, best first").get_by_role("listitem")
    await ranked.last.scroll_into_view_if_needed()
    last, first = await ranked.last.bounding_box(), await ranked.first.bounding_box()
    assert last is not None
    assert first is not None
    await page.mouse.move(last["x"] + 20, last["y"] + 20)
    await page.mouse.down()
    await page.mouse.move(first["x"] + 20, first["y"] + 4, steps=8)
    await page.mouse.up()
    await expect(ranked.first).to_contain_text("unmistakable prompt 2")
    await expect(ranked.last).to_contain_text("unmistakable prompt 1")


async def test_blind_ranking_is_saved_and_then_revealed(
    open_studio: OpenPage, studio: StudioProcesses, takes: list[str]
) -> None:
    page = (await open_studio()).page
    await compare(page, takes)
    before = await saved_rankings(studio)
    compared = page.locator("#compare")
    await compared.get_by_label("Blind").check()
    await expect(compared.get_by_role("radio").first).to_contain_text("Take A")
    for hint in ("unmistakable", "seed", "sketch", "LUFS", "dB", *takes):
        assert hint not in await compared.inner_text()
    html = await compared.inner_html()
    assert not [hint for hint in ("unmistakable", "sketch", "seed 4", *takes) if hint in html]
    await expect(compared.get_by_role("img")).to_have_count(0)
    await page.keyboard.press("1")
    await page.keyboard.press("Shift+ArrowDown")
    await compared.get_by_role("button", name="Save and reveal").click()
    await expect(compared.get_by_text("Saved. B is best.")).to_be_visible()
    revealed = await compared.get_by_role("radio").all_inner_texts()
    saved = await saved_rankings(studio)
    assert len(saved) == len(before) + 1
    assert saved[0].blind
    shown = [next(number for number in range(3) if f"prompt {number}" in text) for text in revealed]
    assert list(saved[0].generation_ids) == [takes[shown[1]], takes[shown[0]], takes[shown[2]]]

    # What is ranked after it was revealed is not blind, and another ranking.
    await page.keyboard.press("Shift+ArrowUp")
    await compared.get_by_role("button", name="Save the ranking").click()
    await expect(compared.get_by_text("Saved. A is best.")).to_be_visible()
    saved = await saved_rankings(studio)
    assert (len(saved), saved[0].blind) == (len(before) + 2, False)
    assert list(saved[0].generation_ids) == [takes[index] for index in shown]

    await compared.get_by_text("Earlier results").click()
    await expect(compared.get_by_text(f"{len(saved)} rankings")).to_be_visible()
    best = compared.get_by_role("table").filter(has_text="By seed").get_by_role("row").nth(1)
    await expect(best).to_contain_text(f"seed {40 + shown[0]}")


async def test_comparison_survives_a_look_at_a_take_and_a_server_that_was_away(
    open_studio: OpenPage, studio: StudioProcesses, takes: list[str]
) -> None:
    watched = await open_studio()
    page = watched.page
    watched.allow("status 50[0-9]", "Failed to load resource", "net::ERR_")
    await studio.kill(SERVER)
    opening = "async (ids) => (await import('/static/js/state.js')).emit('compare-open', { ids })"
    await page.evaluate(opening, takes)
    again = page.locator("#compare").get_by_role("button", name="Try again")
    await again.wait_for()
    await studio.start(SERVER)
    await again.click()
    await page.locator(READY).wait_for()
    await expect(page.locator("#compare .notice")).to_be_hidden()

    await page.keyboard.press("Shift+ArrowDown")
    select = "async (id) => (await import('/static/js/state.js')).emit('select', { id, show: true })"
    await page.evaluate(select, takes[0])
    await expect(page.locator("#compare")).to_be_hidden()
    await page.get_by_role("button", name="Compare 3 takes").click()
    ranked = page.get_by_role("list", name="Ranking, best first").get_by_role("listitem")
    await expect(ranked.first).to_contain_text("unmistakable prompt 1")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_in_any_state(open_studio: OpenPage, takes: list[str], theme: str) -> None:
    page = (await open_studio(color_scheme=theme)).page
    await compare(page, takes)
    await wait_until_drawn(page, "#compare canvas[role=img]", 20)
    found = await accessibility_findings(page, "#compare")
    compared = page.locator("#compare")
    await compared.get_by_label("Blind").check()
    found += await accessibility_findings(page, "#compare")
    await compared.get_by_role("button", name="Save and reveal").click()
    await compared.get_by_text("is best.").wait_for()
    await compared.get_by_text("Earlier results").click()
    await compared.get_by_role("button", name="Compare again").first.wait_for()
    found += await accessibility_findings(page, "#compare")
    assert not found, "\n".join(found)


async def test_fits_a_phone(open_studio: OpenPage, takes: list[str]) -> None:
    page = (await open_studio(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)).page
    await compare(page, [*takes])
    widths = "[document.documentElement.scrollWidth, document.querySelector('#compare').scrollWidth]"
    assert max(await page.evaluate(widths)) <= 360
    await page.get_by_role("radio").nth(1).tap()
    await expect(page.get_by_role("radio").nth(1)).to_be_checked()
    await page.locator(".view-tabs").get_by_role("button", name="History").click()
    await expect(page.locator("#compare")).to_be_hidden()
    await page.locator(".view-tabs").get_by_role("button", name="Now").click()
    await expect(page.locator("#compare")).to_be_visible()


async def test_deleted_take_leaves_the_comparison(open_studio: OpenPage, studio: StudioProcesses) -> None:
    page = (await open_studio()).page
    ids = [await studio.generate(f"brief {number}", 0.5) for number in range(3)]
    await compare(page, ids)
    remove = page.get_by_role("button", name="Take B out of the comparison")
    await remove.click()
    await expect(page.get_by_role("radio")).to_have_count(2)
    await page.locator(READY).wait_for()
    await expect(page.get_by_role("button", name="Compare 2 takes")).to_be_visible()
    await page.evaluate("async (id) => (await import('/static/js/state.js')).emit('deleted', { id })", ids[0])
    await expect(page.locator("#compare")).to_be_hidden()
