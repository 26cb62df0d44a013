"""What a person does in the Studio's page."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.support.studio_processes import StudioProcesses


async def compose(page: Page, studio: StudioProcesses, prompt: str, *, seconds: float, seed: int | None = None) -> str:
    """Fills the form, generates, and returns the id of the take, which is then selected."""
    form = page.locator("#compose")
    await form.get_by_role("textbox", name="Prompt").first.fill(prompt)
    await form.get_by_label("Duration").first.fill(f"{seconds:g}")
    if seed is not None:
        field = form.get_by_label("Seed").first
        if not await field.is_visible():
            await form.locator("summary").first.click()
        await field.fill(str(seed))
    async with page.expect_response(lambda response: "CreateGenerations" in response.url) as answer:
        await form.get_by_role("button", name="Generate").click()
    created = await (await answer.value).json()
    return str(created["generations"][0]["id"])


async def wait_for_state(page: Page, state: str) -> None:
    """Returns when the selected take is said to be in this state."""
    await expect(page.locator("#now")).to_contain_text(state, timeout=120_000)


async def wait_for_frames(page: Page, generation_id: str, frames: int, channels: int = 2) -> None:
    """Returns when the player has received so many frames of the take."""
    await page.wait_for_function(
        "([id, count]) => (window.dgxStudio.capturedSamples(id)?.length ?? 0) >= count",
        arg=[generation_id, frames * channels],
        timeout=120_000,
    )
