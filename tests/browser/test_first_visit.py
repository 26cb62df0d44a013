"""What the README promises a newcomer, in one go: hear two takes, compare them, and hand them over to a DAW."""

from __future__ import annotations

import io
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
import rpp
import soundfile
from playwright.async_api import Locator, Page, expect

from tests.support import ardour
from tests.support.studio_page import compose
from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

PROMPT = "lo-fi hip hop with a warm piano at 84 BPM in A minor"
SECONDS, SESSION_RATE_HZ = 8, 48_000
STEMS = ("drums", "bass", "chords", "melody")


async def save_session(page: Page, dialog: Locator) -> zipfile.ZipFile:
    """Confirms the dialog, and returns the archive that the browser saves."""
    async with page.expect_download() as download:
        await dialog.get_by_role("button", name="Save", exact=True).click()
    saved = await download.value
    assert Path(saved.suggested_filename).suffix == ".zip"
    assert "lo-fi hip hop" in saved.suggested_filename
    return zipfile.ZipFile(io.BytesIO(Path(await saved.path()).read_bytes()))


async def test_two_takes_are_heard_compared_and_handed_over(
    open_studio: OpenPage, studio: StudioProcesses, tmp_path: Path
) -> None:
    page = (await open_studio(viewport={"width": 1500, "height": 1000})).page

    ids = await compose(page, PROMPT, duration=SECONDS, seed=7, takes=2)
    assert len(ids) == 2
    await page.wait_for_function("() => window.dgxStudio.playback().position > 0")
    assert await page.evaluate("window.dgxStudio.playback().id") == ids[0]
    for generation_id in ids:
        await studio.wait_until_final(generation_id)
        mark = page.locator(f'.take-row[data-id="{generation_id}"]').get_by_role("checkbox")
        await expect(mark).to_be_enabled()
        await mark.check()
    marked = page.get_by_role("group", name="Marked takes")
    await expect(marked).to_contain_text("2 marked")

    await marked.get_by_role("button", name="Compare", exact=True).click()
    heard = page.get_by_role("radiogroup", name="Take that is heard").get_by_role("radio")
    await expect(heard).to_have_count(2)
    await page.keyboard.press("2")
    await expect(heard.nth(1)).to_be_checked()
    await page.keyboard.press("1")
    await expect(heard.nth(0)).to_be_checked()
    await page.keyboard.press("Escape")
    await expect(page.locator("#compare")).to_be_hidden()

    await marked.get_by_role("button", name="Session", exact=True).click()
    dialog = page.get_by_role("dialog", name="Save as a session")
    await expect(dialog).to_contain_text("These 2 takes")
    await expect(dialog.get_by_role("radio", name="All of them")).to_be_checked()
    for part in ("Stems", "Notes as MIDI"):
        await dialog.get_by_role("checkbox", name=part).check()
    with await save_session(page, dialog) as archive:
        archive.extractall(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert {".ardour", ".dawproject", ".rpp"} <= {path.suffix for path in folder.iterdir()}
    wavs = sorted(folder.rglob("audiofiles/*.wav"))
    for stem in STEMS:
        assert sum(path.stem.endswith(f" - {stem}") for path in wavs) == len(ids), wavs
    for path in wavs:
        header = soundfile.info(path)
        assert header.samplerate == SESSION_RATE_HZ
        assert header.duration == pytest.approx(SECONDS, abs=0.1)
    assert len(list(folder.rglob("midifiles/*.mid"))) >= 2 * len(ids)
    (project,) = folder.glob("*.rpp")
    sources = rpp.loads(project.read_text("utf-8")).findall(".//SOURCE")
    assert sum(source.attrib[0] == "WAVE" for source in sources) == len(wavs)
    if ardour.LUA:
        home = tmp_path / "home"
        home.mkdir()
        described = ardour.describe(folder, folder.name, home)
        regions = [one for one in described if one["kind"] == "region"]
        assert sum(region["peak"] > 0.1 for region in regions) >= len(ids)
        assert sum(region["notes"] > 0 for region in regions) >= len(ids)


async def test_session_has_only_what_is_asked_for(open_studio: OpenPage, studio: StudioProcesses) -> None:
    generation_id = await studio.generate(PROMPT, 4.0)
    page = (await open_studio(f"/#/take/{generation_id}")).page
    for answer in ("Cancel", "Save"):
        await page.locator("#now").get_by_role("button", name="Save as").click()
        await page.get_by_role("menuitem", name="DAW session").click()
        dialog = page.get_by_role("dialog", name="Save as a session")
        await expect(dialog).to_contain_text("This take")
        if answer == "Cancel":
            await dialog.get_by_role("button", name="Cancel").click()
            await expect(dialog).to_be_hidden()
    # By keys alone: from "All of them" down to the last format.
    await dialog.get_by_role("radio", name="All of them").focus()
    for _ in range(3):
        await page.keyboard.press("ArrowDown")
    await expect(dialog.get_by_role("radio", name="REAPER")).to_be_checked()
    with await save_session(page, dialog) as archive:
        suffixes = sorted(Path(name).suffix for name in archive.namelist())
    assert suffixes == [".rpp", ".wav"]


async def test_session_says_what_it_lacks(open_studio: OpenPage, studio: StudioProcesses) -> None:
    whole, old = [await studio.generate(f"house at {bpm} BPM", 1.0) for bpm in (124, 125)]
    with closing(sqlite3.connect(studio.data_dir / "dgx_music.db")) as database, database:
        # As if an earlier version had made it, whose music this one can't play again.
        database.execute("UPDATE generations SET model_version = '1' WHERE id = ?", (old,))
    page = (await open_studio(viewport={"width": 1500, "height": 1000})).page
    for generation_id in (whole, old):
        await page.locator(f'.take-row[data-id="{generation_id}"]').get_by_role("checkbox").check()
    await page.get_by_role("group", name="Marked takes").get_by_role("button", name="Session", exact=True).click()
    dialog = page.get_by_role("dialog", name="Save as a session")
    await dialog.get_by_role("checkbox", name="Stems").check()
    async with page.expect_download():
        await dialog.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_role("status", name="Messages")).to_contain_text(": no stems: generation")
