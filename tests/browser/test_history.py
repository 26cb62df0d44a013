"""The history in the page: lists of any length, searched, rated, deleted and told apart, also by keyboard alone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.storage_pb2 import ListGenerationsRequest
from tests.support.studio_library import fill
from tests.support.studio_processes import SECONDS, StudioProcesses, studio_processes
from tests.support.watched_page import OpenPage, WatchedPage, open_page

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

MANY, MOST = 500, 10_000
MAX_ROWS = 60
"""So many rows exist at a time, however long the list."""
DESKTOP = {"width": 1500, "height": 900}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def library(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StudioProcesses]:
    """A Studio with 500 takes."""
    data_dir = tmp_path_factory.mktemp("many")
    fill(data_dir, MANY)
    async with studio_processes(data_dir) as processes:
        yield processes


async def open_library(browser: Browser, processes: StudioProcesses) -> WatchedPage:
    context = await browser.new_context(viewport=DESKTOP, reduced_motion="reduce")  # type: ignore[arg-type]
    watched = await open_page(context, processes.url)
    await expect(rows(watched.page).first).to_be_visible()
    return watched


def rows(page: Page) -> Locator:
    return page.get_by_role("grid", name="Takes").get_by_role("row")


async def scroll_to_end(page: Page) -> None:
    await page.locator(".take-scroller").evaluate("(scroller) => { scroller.scrollTop = scroller.scrollHeight; }")


async def listed(processes: StudioProcesses, **filters: object) -> list[storage.Generation]:
    request = ListGenerationsRequest(page_size=1000, **filters)  # type: ignore[arg-type]
    return list((await processes.music.ListGenerations(request, timeout=SECONDS)).generations)


async def check_order(page: Page) -> None:
    """Screen readers read the rows in the order of the list, however it was scrolled."""
    places = await rows(page).evaluate_all("(all) => all.map((row) => Number(row.ariaRowIndex))")
    assert places == sorted(set(places))


async def focused_id(page: Page) -> str:
    return str(await page.evaluate("document.activeElement.closest('[data-id]')?.dataset.id ?? ''"))


async def test_long_list_is_walked_to_its_end_and_few_rows_exist(browser: Browser, library: StudioProcesses) -> None:
    watched = await open_library(browser, library)
    page, newest = watched.page, await listed(library)
    await expect(page.locator("#history .count")).to_have_text(f"{MANY} takes")
    await expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", str(MANY))
    seen = 0
    while seen < MANY:
        await scroll_to_end(page)
        assert await rows(page).count() <= MAX_ROWS
        seen = int(await rows(page).last.get_attribute("aria-rowindex") or 0)
    await check_order(page)
    for top, index in ((20_160, 281), (19_800, 276), (20_520, 286)):  # A row has 72 pixels.
        await page.locator(".take-scroller").evaluate("(scroller, top) => { scroller.scrollTop = top; }", top)
        await expect(page.locator(f".take-row[aria-rowindex='{index}']")).to_be_in_viewport()
        await expect(page.locator(f".take-row[aria-rowindex='{index - 5}']")).to_be_attached()
        await check_order(page)
    await scroll_to_end(page)
    last = page.locator(f'[data-id="{newest[-1].id}"]')
    await expect(last).to_have_attribute("aria-rowindex", str(MANY))
    await expect(last).to_contain_text(newest[-1].prompt[:20])
    watched.check()


@pytest.mark.slow
async def test_ten_thousand_takes_stay_quick(browser: Browser, tmp_path: Path) -> None:
    fill(tmp_path, MOST)
    async with studio_processes(tmp_path) as processes:
        watched = await open_library(browser, processes)
        page = watched.page
        await rows(page).first.click()
        await page.keyboard.press("End")
        while int(await rows(page).last.get_attribute("aria-rowindex") or 0) < MOST:
            await page.keyboard.press("End")
            assert await rows(page).count() <= MAX_ROWS
        rarest = (await listed(processes))[-1]
        await page.get_by_role("searchbox").fill(rarest.prompt[-30:])
        await expect(page.locator("#history .count")).to_contain_text("found")
        await expect(rows(page).first).to_contain_text(rarest.prompt[:20])
        watched.check()


async def test_search_and_filters_find_what_the_server_finds(browser: Browser, library: StudioProcesses) -> None:
    watched = await open_library(browser, library)
    page, count = watched.page, watched.page.locator("#history .count")
    expected = await listed(library, min_bpm=80, max_bpm=120, key="A minor", model_name="sketch")
    assert expected
    await page.get_by_role("button", name="Filters").click()
    await page.get_by_label("Model", exact=True).last.select_option("sketch")
    await page.get_by_label("Key", exact=True).select_option("A minor")
    await page.get_by_label("Lowest tempo in BPM").fill("80")
    await page.get_by_label("Highest tempo in BPM").fill("120")
    await expect(count).to_have_text(f"{len(expected)} found")
    await expect(page.get_by_role("button", name="Filters, 4 set")).to_be_visible()
    assert [await rows(page).nth(index).get_attribute("data-id") for index in range(len(expected))] == [
        one.id for one in expected
    ]
    await page.get_by_role("button", name="Clear all").click()
    await expect(count).to_have_text(f"{MANY} takes")
    await page.get_by_role("searchbox").fill("no prompt has this")
    await expect(page.locator(".list-state")).to_contain_text("No take matches.")
    await page.get_by_role("button", name="Clear search and filters").click()
    await expect(count).to_have_text(f"{MANY} takes")
    watched.check()


async def test_keys_go_through_the_list_and_rate(browser: Browser, library: StudioProcesses) -> None:
    watched = await open_library(browser, library)
    page, newest = watched.page, await listed(library, states=["GENERATION_STATE_COMPLETED"])
    first = newest[0]
    await page.keyboard.press("j")
    while await focused_id(page) != first.id:
        await page.keyboard.press("j")
    await page.keyboard.press("4")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"#/take/{first.id}$"))
    row = page.locator(f'[data-id="{first.id}"]')
    await expect(row).to_have_attribute("aria-selected", "true")
    await expect(row).to_have_attribute("aria-label", re.compile("rated 4 of 5"))
    await expect(page.get_by_role("radio", name="4 of 5 stars")).to_be_checked()
    assert (await library.get(first.id)).rating == 4
    assert await page.get_by_role("grid").locator("[tabindex='0']").count() == 1
    await page.keyboard.press("ArrowRight")
    assert await page.evaluate("document.activeElement.type") == "checkbox"
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("End")
    last_loaded = await focused_id(page)
    await page.keyboard.press("Home")
    assert await focused_id(page) != last_loaded
    await page.keyboard.press("m")
    await expect(page.get_by_role("menu")).to_be_visible()
    await page.keyboard.press("Escape")
    assert await focused_id(page)
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Undo the deletion")
    await page.keyboard.press("Escape")
    watched.check()


async def test_deletion_is_asked_for_and_can_be_undone(browser: Browser, library: StudioProcesses) -> None:
    watched = await open_library(browser, library)
    page = watched.page
    kept, gone = (await listed(library, states=["GENERATION_STATE_COMPLETED"]))[1:3]
    for one in (kept, gone):
        await page.locator(f'[data-id="{one.id}"]').focus()
        await page.keyboard.press("Delete")
        await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        await expect(page.locator(f'[data-id="{one.id}"]')).to_have_count(0)
        if one is kept:
            await page.keyboard.press("u")
            await expect(page.locator(f'[data-id="{one.id}"]')).to_have_count(1)
    # Whoever leaves the page meant it.
    await page.goto("about:blank")
    ids = {one.id for one in await listed(library)}
    while gone.id in ids:
        ids = {one.id for one in await listed(library)}
    assert kept.id in ids
    watched.check()


async def test_takes_of_others_appear_and_their_progress_is_told(
    open_studio: OpenPage, studio: StudioProcesses
) -> None:
    watched = await open_studio(viewport=DESKTOP)
    page = watched.page
    made = await studio.generate("made by another client")
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    row = page.locator(f'[data-id="{made}"]')
    await expect(row).to_contain_text("made by another client")
    varied = await studio.generate("made of it", variation_of=made)
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await page.locator(f'.take-row[data-id="{varied}"]').click()
    tree = page.get_by_role("tree", name="Lineage")
    await expect(tree.get_by_role("treeitem")).to_have_count(2)
    await expect(tree.locator('[aria-level="2"]')).to_contain_text("variation of")
    await tree.get_by_role("treeitem").last.focus()
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"#/take/{made}$"))
    await page.go_back()


async def test_others_may_make_and_delete_many(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio(viewport=DESKTOP)
    page, count = watched.page, watched.page.locator("#history .count")
    await expect(count).not_to_have_text("Loading…")
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    requests = [storage.CreateGenerationRequest(prompt=f"one of many {n}", duration_seconds=0.1) for n in range(60)]
    for _ in range(2):  # More than a page.
        batch = storage.BatchCreateGenerationsRequest(requests=requests)
        made = (await studio.music.BatchCreateGenerations(batch, timeout=SECONDS)).generations
    for one in made:
        await studio.wait_until_final(one.id)
    await page.evaluate(look)
    total = len(await listed(studio))
    await expect(count).to_have_text(f"{total} takes")
    while int(await rows(page).last.get_attribute("aria-rowindex") or 0) < total:
        await scroll_to_end(page)
    await page.locator(".take-scroller").evaluate("(scroller) => { scroller.scrollTop = 0; }")
    # Its thumbnail may still be asked for.
    watched.allow("404.*/api/GetWaveform")
    gone = made[-2].id
    await expect(page.locator(f'.take-row[data-id="{gone}"]')).to_be_visible()
    await studio.music.DeleteGeneration(storage.DeleteGenerationRequest(id=gone), timeout=SECONDS)
    await page.evaluate(look)
    await expect(page.locator(f'.take-row[data-id="{gone}"]')).to_have_count(0)
    await expect(count).to_have_text(f"{total - 1} takes")


async def test_prompts_of_any_script_and_length_keep_their_rows(open_studio: OpenPage, studio: StudioProcesses) -> None:
    texts = [
        "x" * 10_000,
        "line\n" * 500,
        "مرحبا بالعالم موسيقى هادئة",
        "z" + "\u0335\u0321\u031b" * 300,
        "👩‍👩‍👧‍👦" * 200,
    ]
    ids = [await studio.create(text, 0.1) for text in texts]
    for generation_id in ids:
        await studio.wait_until_final(generation_id)
    for width in (360, 1500):
        page = (await open_studio(viewport={"width": width, "height": 800})).page
        if width == 360:
            await page.get_by_role("button", name="History", exact=True).click()
        heights = set()
        for generation_id in ids:
            row = page.locator(f'.take-row[data-id="{generation_id}"]')
            await expect(row).to_be_visible()
            heights.add(await row.evaluate("(element) => element.offsetHeight"))
        assert len(heights) == 1
        assert not await page.evaluate("document.documentElement.scrollWidth > innerWidth")
        names = await rows(page).evaluate_all("(all) => all.map((row) => row.getAttribute('aria-label').length)")
        assert max(names) < 1000
