"""What others have written, such as prompts, tags, names of models and of clients, is shown as text, and never becomes
part of the page."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
import pytest_asyncio
import rpp

from tests.support.studio_library import ATTACKED, HOSTILE_TEXTS, fill_with_hostile_texts
from tests.support.studio_page import wait_until_drawn
from tests.support.studio_processes import StudioProcesses, studio_processes
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

VISIBLE_CHARACTERS = 40
OPEN_COMPARISON = "async (ids) => (await import('/static/js/state.js')).emit('compare-open', { ids })"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def texts(data_dir: Path) -> dict[str, str]:
    """Id of a take → its text."""
    return fill_with_hostile_texts(data_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def studio(data_dir: Path, texts: dict[str, str]) -> AsyncIterator[StudioProcesses]:
    async with studio_processes(data_dir) as processes:
        yield processes


async def test_takes_with_hostile_texts_are_listed_and_opened(open_studio: OpenPage, texts: dict[str, str]) -> None:
    watched = await open_studio()
    page = watched.page
    await page.locator("#history .take-row").get_by_text("<img src=x onerror=").first.wait_for()
    for generation_id, hostile in texts.items():
        await page.goto(f"{page.url.partition('#')[0]}#/take/{generation_id}")
        shown = page.locator("#now").get_by_text(hostile.strip()[:VISIBLE_CHARACTERS].split("\x1b")[0]).first
        await shown.wait_for()
        assert not await page.evaluate(ATTACKED), hostile
        assert not await watched.scrolls_sideways(), hostile
    assert await page.locator("script:not([src]), iframe, img[src='x'], form#now, math").count() == 0
    assert await page.locator("#compose").count() == await page.locator("#now").count() == 1


async def test_hostile_words_may_be_searched_for(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio()
    search = watched.page.get_by_role("searchbox")
    for hostile in HOSTILE_TEXTS:
        if len(hostile) < 100 and hostile.isprintable():
            await studio.create(hostile, 0.1, model_name="sketch")
            await search.fill(hostile)
            await watched.page.locator("#history .take-row").get_by_text(hostile[:VISIBLE_CHARACTERS]).first.wait_for()
            assert not await watched.page.evaluate(ATTACKED), hostile


async def test_takes_with_hostile_texts_are_compared(open_studio: OpenPage, texts: dict[str, str]) -> None:
    watched = await open_studio(viewport={"width": 1400, "height": 1000})
    page, ids = watched.page, list(texts)
    for start in range(0, len(ids), 4):
        await page.evaluate(OPEN_COMPARISON, ids[start : start + 4])
        await page.locator(".compare-play:not([disabled])").wait_for()
        compared = page.locator("#compare")
        for generation_id in ids[start : start + 4]:
            words = texts[generation_id].strip()[:10].split("\x1b")[0]
            await compared.get_by_role("radio").filter(has_text=words).first.wait_for()
        await wait_until_drawn(page, "#compare canvas[role=img]", 20)
        assert not await page.evaluate(ATTACKED), ids
        assert not await watched.scrolls_sideways(), ids
        await page.keyboard.press("Escape")
        await compared.wait_for(state="hidden")


async def test_takes_with_hostile_texts_become_a_session(
    open_studio: OpenPage, studio: StudioProcesses, texts: dict[str, str]
) -> None:
    page = (await open_studio()).page
    response = await page.request.get(
        f"{studio.url}/api/session?" + urlencode([("id", one) for one in texts]), timeout=120_000
    )
    assert response.ok, await response.text()
    with zipfile.ZipFile(io.BytesIO(await response.body())) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]
        projects = [archive.read(str(name)) for name in names if name.suffix in (".ardour", ".rpp")]
    assert len({name.parts[0] for name in names}) == 1
    assert sum(name.suffix == ".wav" for name in names) == len(texts)
    for name in names:
        assert ".." not in name.parts
        assert not set('<>:"\\|?*') & set(str(name)), name
        assert str(name).isprintable(), name
        assert max(len(part.encode()) for part in name.parts) <= 255
    assert len(projects) == 2
    ElementTree.fromstring(next(one for one in projects if one.startswith(b"<?xml")))
    rpp.loads(next(one for one in projects if one.startswith(b"<REAPER")).decode())


async def test_addresses_with_hostile_fragments_show_no_take(open_studio: OpenPage) -> None:
    for fragment in ("<script>1</script>", "../../api/sign-out", "%00", "x" * 5_000, "__proto__", "'\"><img src=x>"):
        watched = await open_studio(f"/#/take/{fragment}")
        watched.allow("status 4", "Failed to load resource")
        await watched.page.locator("#compose").wait_for()
        assert not await watched.page.evaluate(ATTACKED)
