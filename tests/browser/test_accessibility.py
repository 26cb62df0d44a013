"""The page for people who see, hear or move differently: axe-core's rules in each view and both themes, everything by
keyboard, and names for what a screen reader reads."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.support.axe_rules import accessibility_findings
from tests.support.studio_page import compose, reveal, wait_for_state
from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

THEMES = ("light", "dark")


async def start(page: Page) -> None:
    """Nothing is selected."""


async def open_groups(page: Page) -> None:
    for summary in await page.locator("#compose details > summary").all():
        await summary.click()
    await page.get_by_label("What to make").select_option("repaint")
    for name in ("Add a section", "Add a prompt", "Add an adapter"):
        add = page.get_by_role("button", name=name)
        if await add.is_enabled():  # The model can do it.
            await add.click()


async def show_details(page: Page) -> None:
    for summary in await page.locator("#now details > summary").all():
        await summary.click()


async def show_error(page: Page) -> None:
    await page.locator("#compose").get_by_role("button", name="Generate").click()
    await expect(page.locator("#compose .field-error").first).to_be_visible()


async def show_help(page: Page) -> None:
    await page.locator("body").press("?")
    await expect(page.get_by_role("dialog")).to_be_visible()


async def show_filters(page: Page) -> None:
    await page.get_by_role("button", name="Filters").click()


async def show_menu(page: Page) -> None:
    await page.locator("#now").get_by_role("button", name="Save as").click()
    await expect(page.get_by_role("menu")).to_be_visible()


async def ask_for_deletion(page: Page) -> None:
    await page.locator("#now").get_by_role("button", name="More", exact=True).click()
    await page.get_by_role("menuitem", name="Delete").click()


VIEWS = {view.__name__: view for view in (
    start, open_groups, show_details, show_error, show_help, show_filters, show_menu, ask_for_deletion
)}  # fmt: skip


@pytest.mark.parametrize("theme", THEMES)
async def test_axe_finds_nothing(open_studio: OpenPage, studio: StudioProcesses, theme: str) -> None:
    generation_id = await studio.generate("house at 124 BPM in A minor", 1.0)
    found = []
    for name, show in VIEWS.items():
        watched = await open_studio("/" if name == "start" else f"/#/take/{generation_id}", color_scheme=theme)
        await watched.page.locator("#history").get_by_text("house at 124 BPM").first.wait_for()
        if name != "start":
            await wait_for_state(watched.page, "Finished")
        await show(watched.page)
        found += [f"{name}, {theme}: {finding}" for finding in await accessibility_findings(watched.page)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("view", ["compose", "now", "history"])
async def test_axe_finds_nothing_on_a_phone(open_studio: OpenPage, studio: StudioProcesses, view: str) -> None:
    generation_id = await studio.generate("house at 124 BPM in A minor", 1.0)
    watched = await open_studio(f"/#/take/{generation_id}", viewport={"width": 360, "height": 740}, is_mobile=True)
    await watched.page.get_by_role("button", name=view.capitalize(), exact=True).last.click()
    await expect(watched.page.locator(f"#{view}")).to_be_visible()
    assert await accessibility_findings(watched.page) == []


async def test_take_is_made_heard_and_rated_by_keyboard_alone(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio()
    page = watched.page
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the prompt"
    await page.keyboard.press("Enter")
    await page.keyboard.type("ambient in D major")
    await page.keyboard.press("Control+Enter")
    await wait_for_state(page, "Finished")
    made = await studio.newest()
    assert made.prompt == "ambient in D major"
    await page.wait_for_function("() => window.dgxStudio.playback().position > 0")

    await page.keyboard.press("Escape")
    await page.evaluate("document.activeElement.blur()")
    await page.keyboard.press("Space")
    await page.wait_for_function("() => window.dgxStudio.playback().state !== 'playing'")
    async with page.expect_response("**/api/RateGeneration") as rated:
        await page.keyboard.press("4")
    assert (await rated.value).ok
    await expect(page.locator("#now [role=radio][aria-checked=true], #now .star.on").first).to_be_visible()
    assert (await studio.get(made.id)).rating == 4


async def test_every_control_is_reached_by_tab_and_shows_it(open_studio: OpenPage, studio: StudioProcesses) -> None:
    generation_id = await studio.generate("house at 124 BPM in A minor", 1.0)
    watched = await open_studio(f"/#/take/{generation_id}")
    page = watched.page
    await wait_for_state(page, "Finished")
    seen: list[str] = []
    for _ in range(120):
        await page.keyboard.press("Tab")
        current = await page.evaluate(
            """async () => {
                const element = document.activeElement;
                if (element === document.body) return null;
                // Even a transition of no length begins where it came from.
                await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
                const style = getComputedStyle(element);
                const box = element.getBoundingClientRect();
                const hidden = element.closest(".visually-hidden") !== null;
                const label = element.closest("label");
                const outline = style.outlineStyle !== "none" ||
                    (label && getComputedStyle(label).outlineStyle !== "none") || style.boxShadow !== "none";
                element.dataset.tabbed ??= String(window.tabbed = (window.tabbed ?? 0) + 1);
                return {key: element.dataset.tabbed, html: element.outerHTML.slice(0, 120), outline,
                        inside: box.bottom > 0 && box.top < innerHeight, hidden};
            }"""
        )
        if current is None or current["key"] in seen:
            break
        seen.append(current["key"])
        assert current["outline"], f"nothing shows that this has the focus: {current['html']}"
        assert current["inside"], f"this is out of sight: {current['html']}"
    assert len(seen) > 25, seen


async def test_progress_is_told_to_screen_readers_and_not_chattily(
    open_studio: OpenPage, studio: StudioProcesses
) -> None:
    watched = await open_studio()
    page = watched.page
    await page.evaluate(
        """() => {
            window.spoken = [];
            const observer = new MutationObserver((changes) => {
                for (const {target} of changes) {
                    const region = (target.nodeType === 1 ? target : target.parentElement)?.closest(
                        "[role=status], [role=alert], [aria-live]:not([aria-live=off])");
                    if (region?.textContent.trim()) window.spoken.push(region.textContent.trim());
                }
            });
            observer.observe(document.body, {subtree: true, childList: true, characterData: true});
        }"""
    )
    await compose(page, "techno at 130 BPM", duration=60, seed=1)
    await wait_for_state(page, "Finished")
    spoken: list[str] = await page.evaluate("window.spoken")
    assert any("queued" in text for text in spoken), spoken
    assert 1 <= len(set(spoken)) <= 12, spoken


async def test_reduced_motion_is_respected(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio(reduced_motion="reduce")
    moving = await watched.page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((element) => {
            const style = getComputedStyle(element);
            return [style.animationDuration, style.transitionDuration].some((text) =>
                text.split(",").some((part) => parseFloat(part) > 0.02));
        }).map((element) => element.outerHTML.slice(0, 80))"""
    )
    assert moving == []


async def test_form_fields_have_names_and_help(open_studio: OpenPage) -> None:
    watched = await open_studio()
    page = watched.page
    nameless = await page.evaluate(
        """() => [...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
            .filter((field) => !field.labels?.length && !field.getAttribute("aria-label"))
            .map((field) => field.outerHTML.slice(0, 100))"""
    )
    assert nameless == []
    guidance = page.locator("#compose").get_by_label("Guidance")
    await reveal(guidance)
    described = await guidance.get_attribute("aria-describedby")
    assert described
    assert await page.locator(f"#{described.split()[0]}").inner_text()
