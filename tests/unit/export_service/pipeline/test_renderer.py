"""Tags of renders; renders of files that are deleted or replaced meanwhile, and during a shutdown."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dgx_music.errors import NotFound, Unavailable
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.writer import AudioFile
from export_service.library.store import Library
from export_service.pipeline import mastering
from export_service.pipeline.renderer import Renderer
from export_service.tagging.containers import read_tags
from export_service.tagging.cover import parse_cover
from export_service.tagging.sections import Section
from export_service.tagging.tags import FileTags
from service_runtime.audio.output_options import FileFormat, OutputOptions, PublicationTags
from tests.support import signals
from tests.support.pictures import png

ID = "123e4567-e89b-12d3-a456-426614174000"
KEEP_LEVEL = LoudnessTarget(None, -1.0)
FLAC = OutputOptions(FileFormat.FLAC_24)


def commit(library, samples, attempt=1, tags=None):
    staged = library.staging_path(ID, attempt)
    AudioFile(FileFormat.WAV_PCM_24, 32_000, 2, len(samples), tags, 0).write(staged, [samples], 0.0)
    return library.commit(staged, ID, ".wav", lambda: None)


class HookedLibrary(Library):
    """Calls a hook right before a render is committed."""

    def lock_unchanged(self, generation_id, source):
        self.before_commit()
        return super().lock_unchanged(generation_id, source)


@pytest.fixture
def library(tmp_path):
    library = HookedLibrary(tmp_path)
    library.before_commit = lambda: None
    library.open()
    return library


@pytest.fixture
async def renderer(library):
    renderer = Renderer(library)
    yield renderer
    await renderer.stop()


def files(tmp_path):
    return {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}


async def test_render_has_the_tags_cover_and_sections_of_its_source(library, renderer):
    tags = FileTags(ID, 1, "x 1", "sketch 1", "house", 120.0, prompt="at night")
    sections = (Section("Intro 夜", 0, 16_000), Section("Vers", 16_000, 32_000))
    tags = replace(tags, publication=PublicationTags("Nacht 夜", album="A"), cover=parse_cover(png(), "cover"))
    commit(library, signals.music(32_000, 1), tags=replace(tags, sections=sections))
    at_another_rate = OutputOptions(FileFormat.WAV_PCM_16, sample_rate_hz=48_000)
    rendered = await renderer.render(ID, at_another_rate, KEEP_LEVEL)
    scaled = (Section("Intro 夜", 0, 24_000), Section("Vers", 24_000, 48_000))
    assert read_tags(rendered.path, ID) == replace(tags, sections=scaled)


async def test_render_of_file_deleted_before_commit_fails(library, renderer, tmp_path):
    commit(library, signals.music(32_000, 1))
    library.before_commit = lambda: library.delete(ID)
    with pytest.raises(NotFound, match="deleted or replaced in the meantime"):
        await renderer.render(ID, FLAC, KEEP_LEVEL)
    assert files(tmp_path) == set()


async def test_render_of_file_replaced_before_commit_fails(library, renderer, tmp_path):
    commit(library, signals.music(32_000, 1))
    library.before_commit = lambda: commit(library, signals.music(32_000, 1, seed=2), attempt=2)
    with pytest.raises(NotFound, match="deleted or replaced in the meantime"):
        await renderer.render(ID, FLAC, KEEP_LEVEL)
    assert files(tmp_path) == {"outputs"}


@pytest.mark.parametrize("replace", [False, True])
async def test_render_of_file_changed_before_second_pass_fails(library, renderer, tmp_path, monkeypatch, replace):
    commit(library, signals.music(32_000, 1))

    def change_file_and_master(*arguments):
        library.delete(ID)
        if replace:
            commit(library, signals.music(32_000, 1, seed=2))
        return mastering.master_to_file(*arguments)

    monkeypatch.setattr("export_service.pipeline.renderer.master_to_file", change_file_and_master)
    with pytest.raises(NotFound, match="deleted or replaced in the meantime"):
        await renderer.render(ID, FLAC, KEEP_LEVEL)
    assert files(tmp_path) == ({"outputs"} if replace else set())


async def test_render_continues_for_second_caller_when_first_is_cancelled(library, renderer):
    commit(library, signals.music(32_000, 1))
    loop, reached, proceed = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def block():
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(proceed.wait(), loop).result(10)

    library.before_commit = block
    first = asyncio.create_task(renderer.render(ID, FLAC, KEEP_LEVEL))
    await reached.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(renderer.render(ID, FLAC, KEEP_LEVEL))
    proceed.set()
    assert (await second).path.is_file()


async def test_drain_aborts_renders(library, renderer, tmp_path):
    commit(library, signals.music(32_000, 1))
    renderer.drain()
    with pytest.raises(Unavailable) as raised:
        await renderer.render(ID, FLAC, KEEP_LEVEL)
    assert raised.value.reason == "DRAINING"
    assert files(tmp_path) == {"outputs"}
