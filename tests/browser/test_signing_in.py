"""A Studio that is open to the network: TLS, and a token that the page asks for and never sees again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.support.command_line import Shell
from tests.support.studio_processes import StudioProcesses, studio_processes
from tests.support.tls_files import make_tls_files
from tests.support.watched_page import OpenPage, WatchedPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

REFUSED = ("status 40[13]", "Failed to load resource")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Scope → a token of it."""
    shell = Shell(tmp_path_factory.getbasetemp() / "guarded")
    shell.run("db", "init")
    return {
        scope: shell.run("token", "create", scope, "--scope", scope).stdout.strip() for scope in ("generate", "read")
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def studio(tmp_path_factory: pytest.TempPathFactory, tokens: dict[str, str]) -> AsyncIterator[StudioProcesses]:
    folder = tmp_path_factory.getbasetemp()
    files = make_tls_files(folder / "tls")
    settings = {f"DGX_MUSIC_{name.upper()}": str(value) for name, value in files.server_settings().items()}
    async with studio_processes(folder / "guarded", DGX_MUSIC_REQUIRE_TOKENS="1", **settings) as processes:
        yield processes


@pytest_asyncio.fixture(loop_scope="session")
async def watched(open_studio: OpenPage) -> WatchedPage:
    """The page of somebody who has no token yet. The certificate is that of the test's own authority."""
    page = await open_studio(ignore_https_errors=True)
    page.allow(*REFUSED)
    return page


async def test_page_asks_for_a_token_and_keeps_it_from_scripts(watched: WatchedPage, tokens: dict[str, str]) -> None:
    page, token = watched.page, tokens["generate"]
    field = page.get_by_label("Token", exact=False).first
    await field.fill("dgxm_aaaaaaaa_" + "a" * 43)
    await field.press("Enter")
    await expect(page.get_by_role("alert").filter(has_text="token").first).to_be_visible()
    await field.fill(token)
    await field.press("Enter")
    await expect(field).to_be_hidden()
    await expect(page.locator("#compose").get_by_label("Model")).to_contain_text("sketch")  # It may call the server.

    cookies = await page.context.cookies()
    assert [(one["httpOnly"], one["secure"], one["sameSite"]) for one in cookies] == [(True, True, "Strict")]
    stored = await page.evaluate(
        "JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}, location.href])"
    )
    assert token not in stored
    assert token not in await page.content()

    await page.reload()
    await expect(page.locator("#compose").get_by_label("Model")).to_contain_text("sketch")
    await page.get_by_role("button", name="Sign out").click()
    await expect(field).to_be_visible()
    assert await page.context.cookies() == []
    assert not any(token in one for one in watched.requests)


async def test_token_that_may_only_read_is_told_so(watched: WatchedPage, tokens: dict[str, str]) -> None:
    page = watched.page
    await page.get_by_label("Token", exact=False).first.fill(tokens["read"])
    await page.get_by_label("Token", exact=False).first.press("Enter")
    await expect(page.locator("#compose").get_by_label("Model")).to_contain_text("sketch")  # The page has begun anew.
    await page.get_by_role("textbox", name="Prompt").first.fill("house")
    await page.locator("#compose").get_by_role("button", name="Generate").click()
    await expect(page.get_by_role("alert").filter(has_text="scope").first).to_be_visible()
