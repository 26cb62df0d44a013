"""Edits that fail, and edits of files that are rendered, deleted or replaced meanwhile."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from contextlib import contextmanager

import pytest

from dgx_music.errors import NotFound, ResourceExhausted, Unavailable
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.writer import AudioFile
from export_service.library import renders
from export_service.library.file_locks import FileLocks
from export_service.library.store import Library
from export_service.library.verification import FileCondition, verify
from export_service.pipeline.renderer import Renderer
from export_service.pipeline.tag_editor import TagEditor
from export_service.retagging.tag_edit import TagEdit
from export_service.tagging.containers import read_tags
from export_service.tagging.tags import FileTags
from service_runtime.audio.output_options import FileFormat, OutputOptions
from service_runtime.failpoints import Failpoint
from tests.support import signals

ID = "123e4567-e89b-12d3-a456-426614174000"
KEEP_LEVEL = LoudnessTarget(None, -1.0)
FLAC = OutputOptions(FileFormat.FLAC_24)
TITLE = TagEdit(title="New")


def commit(library, attempt=1):
    tags = FileTags(ID, attempt, "dgx-music 0.1", "sketch 1")
    staged, samples = library.staging_path(ID, attempt), signals.music(32_000, 1)
    AudioFile(FileFormat.WAV_PCM_24, 32_000, 2, len(samples), tags, 0).write(staged, [samples], 0.0)
    return library.commit(staged, ID, ".wav", lambda: None)


class HookedLibrary(Library):
    """Calls a hook right before an edit or a render is committed."""

    @contextmanager
    def lock_unchanged(self, generation_id, source, render_id=""):
        self.before_commit()
        with super().lock_unchanged(generation_id, source, render_id) as path:
            yield path


@pytest.fixture
def library(tmp_path):
    library = HookedLibrary(tmp_path)
    library.before_commit = lambda: None
    library.open()
    return library


@pytest.fixture
def locks():
    return FileLocks()


@pytest.fixture
async def editor(library, locks):
    editor = TagEditor(library, locks)
    yield editor
    await editor.stop()


@pytest.fixture
async def renderer(library, locks):
    renderer = Renderer(library, locks=locks)
    yield renderer
    await renderer.stop()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def contents(tmp_path):
    return {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("of_render", [False, True])
@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, ResourceExhausted), (errno.EIO, Unavailable)], ids=["ENOSPC", "EIO"]
)
async def test_disk_error_leaves_old_file(
    library, editor, renderer, tmp_path, monkeypatch, failing_disk, of_render, code, error
):
    commit(library)
    render_id = (await renderer.render(ID, FLAC, KEEP_LEVEL)).render_id if of_render else ""
    before = contents(tmp_path)
    for function in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, function, failing_disk(code))
            with pytest.raises(error):
                await editor.edit(ID, render_id, TITLE)
        assert contents(tmp_path) == before
    assert (await editor.edit(ID, render_id, TITLE)).path.is_file()


@pytest.fixture
def failing_disk():
    def fail(code):
        def function(*arguments):
            raise OSError(code, os.strerror(code))

        return function

    return fail


async def test_disk_error_before_render_is_moved_restores_its_description(
    library, editor, renderer, tmp_path, monkeypatch
):
    commit(library)
    rendered = await renderer.render(ID, FLAC, KEEP_LEVEL)
    before = contents(tmp_path)
    full_disk = Failpoint("export.before_render_rename:ENOSPC")
    monkeypatch.setattr(renders, "failpoint", lambda point: full_disk.hit() if point == full_disk.point else None)
    with pytest.raises(ResourceExhausted):
        await editor.edit(ID, rendered.render_id, TITLE)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("failing", [1, 2, 3], ids=["first-render", "second-render", "file"])
async def test_edit_that_fails_midway_is_completed_by_repeating_it(library, editor, renderer, failing, failing_disk):
    path = commit(library)
    specs = [OutputOptions(file_format) for file_format in (FileFormat.FLAC_24, FileFormat.WAV_PCM_16)]
    rendered = {(await renderer.render(ID, spec, KEEP_LEVEL)).render_id for spec in specs}
    original, commits = path.read_bytes(), iter(range(1, failing + 1))
    library.before_commit = lambda: next(commits) == failing and failing_disk(errno.ENOSPC)()
    with pytest.raises(ResourceExhausted):
        await editor.edit(ID, "", TITLE)
    assert path.read_bytes() == original
    titles = [read_tags(library.renders.find(ID, render_id), ID).publication.title for render_id in rendered]
    assert titles.count("New") == failing - 1
    assert {one.condition for one in verify(library, ID, sha256(original), presence_only=False)} == {
        FileCondition.INTACT
    }
    library.before_commit = lambda: None
    edited = await editor.edit(ID, "", TITLE)
    assert edited.sha256 == sha256(path.read_bytes())
    paths = [path, *(library.renders.find(ID, render_id) for render_id in rendered)]
    assert {read_tags(one, ID).publication.title for one in paths} == {"New"}


async def test_render_that_is_deleted_meanwhile_is_left_out(library, editor, renderer):
    path = commit(library)
    render_id = (await renderer.render(ID, FLAC, KEEP_LEVEL)).render_id

    def delete_render():
        library.before_commit = lambda: None
        library.delete_render(ID, render_id)

    library.before_commit = delete_render
    await editor.edit(ID, "", TITLE)
    assert read_tags(path, ID).publication.title == "New"
    with pytest.raises(NotFound):
        library.renders.find(ID, render_id)


@pytest.mark.parametrize("replaced", [False, True])
async def test_edit_of_file_that_is_deleted_or_replaced_fails(library, editor, tmp_path, replaced):
    path = commit(library)

    def change():
        library.delete(ID)
        if replaced:
            commit(library, attempt=2)

    library.before_commit = change
    with pytest.raises(NotFound, match="deleted or replaced in the meantime"):
        await editor.edit(ID, "", TITLE)
    assert list(contents(tmp_path)) == ([path.name] if replaced else [])
    assert not replaced or read_tags(path, ID).attempt == 2


async def test_edit_of_render_without_description_fails(library, editor, renderer):
    commit(library)
    rendered = await renderer.render(ID, FLAC, KEEP_LEVEL)
    rendered.path.with_suffix(".json").write_text("{}")
    with pytest.raises(NotFound, match="render it again"):
        await editor.edit(ID, rendered.render_id, TITLE)


async def test_edit_waits_for_render_and_render_for_edit(library, editor, renderer):
    path = commit(library)
    loop, reached, proceed = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def block():
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(proceed.wait(), loop).result(10)

    library.before_commit = block
    rendering = asyncio.create_task(renderer.render(ID, FLAC, KEEP_LEVEL))
    await reached.wait()
    editing = asyncio.create_task(editor.edit(ID, "", TITLE))
    await asyncio.sleep(0)
    late = asyncio.create_task(renderer.render(ID, OutputOptions(FileFormat.FLAC_16), KEEP_LEVEL))
    proceed.set()
    assert read_tags((await rendering).path, ID).publication.title == ""
    await editing
    assert read_tags(path, ID).publication.title == "New"
    assert (await late).path.is_file()


async def test_edit_is_completed_when_caller_is_cancelled(library, editor):
    path = commit(library)
    loop, reached, proceed = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def block():
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(proceed.wait(), loop).result(10)

    library.before_commit = block
    editing = asyncio.create_task(editor.edit(ID, "", TITLE))
    await reached.wait()
    editing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await editing
    proceed.set()
    await editor.stop()
    assert read_tags(path, ID).publication.title == "New"
