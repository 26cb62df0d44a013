"""Renders beside files that are deleted or made anew meanwhile, and a service that goes down."""

from __future__ import annotations

import asyncio

import pytest

from dgx_music.errors import NotFound, Unavailable
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.writer import AudioFile
from export_service.library.store import Library
from export_service.pipeline import mastering
from export_service.pipeline.renderer import Renderer
from service_runtime.audio.output_options import FileFormat, OutputOptions

ID = "123e4567-e89b-12d3-a456-426614174000"
AS_IT_IS = LoudnessTarget(None, -1.0)
FLAC = OutputOptions(FileFormat.FLAC_24)


def land(library, samples, attempt=1):
    part = library.part(ID, attempt)
    AudioFile(FileFormat.WAV_PCM_24, 32_000, 2, len(samples), None, 0).write(part, [samples], 0.0)
    return library.land(part, ID, ".wav", lambda: None)


class ThatMeanwhile(Library):
    """A library in which something happens right before a render lands."""

    def unchanged(self, generation_id, source):
        self.meanwhile()
        return super().unchanged(generation_id, source)


@pytest.fixture
def library(tmp_path):
    library = ThatMeanwhile(tmp_path)
    library.meanwhile = lambda: None
    library.open()
    return library


@pytest.fixture
async def renderer(library):
    renderer = Renderer(library)
    yield renderer
    await renderer.stop()


def files(tmp_path):
    return {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}


async def test_a_file_that_is_deleted_while_it_is_rendered(library, renderer, signals, tmp_path):
    land(library, signals.music(32_000, 1))
    library.meanwhile = lambda: library.delete(ID)
    with pytest.raises(NotFound, match="deleted or made anew meanwhile"):
        await renderer.render(ID, FLAC, AS_IT_IS)
    assert files(tmp_path) == set()


async def test_a_file_that_is_made_anew_while_it_is_rendered(library, renderer, signals, tmp_path):
    land(library, signals.music(32_000, 1))
    library.meanwhile = lambda: land(library, signals.music(32_000, 1, seed=2), attempt=2)
    with pytest.raises(NotFound, match="deleted or made anew meanwhile"):
        await renderer.render(ID, FLAC, AS_IT_IS)
    assert files(tmp_path) == {"outputs"}


@pytest.mark.parametrize("anew", [False, True])
async def test_a_file_that_is_gone_when_it_is_read_once_more(library, renderer, signals, tmp_path, monkeypatch, anew):
    land(library, signals.music(32_000, 1))

    def between(*arguments):
        library.delete(ID)
        if anew:
            land(library, signals.music(32_000, 1, seed=2))
        return mastering.finish(*arguments)

    monkeypatch.setattr("export_service.pipeline.renderer.finish", between)
    with pytest.raises(NotFound, match="deleted or made anew meanwhile"):
        await renderer.render(ID, FLAC, AS_IT_IS)
    assert files(tmp_path) == ({"outputs"} if anew else set())


async def test_a_render_goes_on_for_others_when_who_asked_first_goes_away(library, renderer, signals):
    land(library, signals.music(32_000, 1))
    loop, reached, goes_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def hold():
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result(10)

    library.meanwhile = hold
    first = asyncio.create_task(renderer.render(ID, FLAC, AS_IT_IS))
    await reached.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(renderer.render(ID, FLAC, AS_IT_IS))
    goes_on.set()
    assert (await second).path.is_file()


async def test_a_service_that_goes_down_ends_its_renders(library, renderer, signals, tmp_path):
    land(library, signals.music(32_000, 1))
    renderer.drain()
    with pytest.raises(Unavailable) as raised:
        await renderer.render(ID, FLAC, AS_IT_IS)
    assert raised.value.reason == "DRAINING"
    assert files(tmp_path) == {"outputs"}


def test_of_two_files_that_a_crash_left_the_newer_one_counts_and_both_are_deleted(library, signals, tmp_path):
    path = land(library, signals.music(32_000, 1))
    newer = path.with_suffix(".flac")
    newer.write_bytes(b"newer")
    again = Library(tmp_path)
    assert again.find(ID) == newer
    assert again.delete(ID)
    assert files(tmp_path) == set()
