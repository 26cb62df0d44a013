"""What a person does in the Studio's page, and sees."""

from __future__ import annotations

from playwright.async_api import Locator, Page, expect

MILLISECONDS = 120_000
"""Limit for what the servers have to do."""
DRAWN = """
async ([selector, count]) => {
    const colours = (canvas) => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
        return new Set(new Uint32Array(pixels.buffer)).size;
    };
    const isDrawn = () => [...document.querySelectorAll(selector)].every((one) => colours(one) > count);
    while (!isDrawn()) await new Promise(requestAnimationFrame);
}
"""


async def compose(page: Page, prompt: str, **fields: object) -> list[str]:
    """Fills the form, generates, and returns the ids of the takes, of which the first is then selected.

    `fields` are labels in lower case, e.g. duration=4, seed=7, takes=2."""
    form = page.locator("#compose")
    await form.get_by_role("textbox", name="Prompt", exact=True).first.fill(prompt)
    for label, value in fields.items():
        field = form.get_by_label(label.replace("_", " ").capitalize()).first
        await reveal(field)
        await field.fill(str(value))
    return await send(page)


async def send(page: Page) -> list[str]:
    """Sends the form as it is filled, and returns the ids of the takes."""
    async with page.expect_response(lambda response: "CreateGeneration" in response.url) as answer:
        await page.locator("#compose").get_by_role("button", name="Generate").click()
    created = await (await answer.value).json()
    assert "error" not in created, created["error"]
    return [one["id"] for one in created["generations"]]


async def reveal(field: Locator) -> None:
    """Opens the group of the form that the field is in."""
    group = field.locator("xpath=ancestor::details")
    for index in range(await group.count()):
        if await group.nth(index).get_attribute("open") is None:
            await group.nth(index).locator("summary").first.click()


async def wait_for_state(page: Page, state: str) -> None:
    """Returns when the selected take is said to be in this state."""
    await expect(page.locator("#now .badge").get_by_text(state, exact=True).first).to_be_visible(timeout=MILLISECONDS)


async def wait_for_frames(page: Page, generation_id: str, frames: int, channels: int = 2) -> None:
    """Returns when the player has received so many frames of the take live."""
    await page.wait_for_function(
        "([id, count]) => (window.dgxStudio.capturedSamples(id)?.samples.length ?? 0) >= count",
        arg=[generation_id, frames * channels],
        timeout=MILLISECONDS,
    )


async def wait_until_drawn(page: Page, selector: str, colours: int) -> None:
    """Returns when each of these canvases has more different colours than this."""
    await page.evaluate(DRAWN, [selector, colours])
