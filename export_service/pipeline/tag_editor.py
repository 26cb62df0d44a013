"""Edits the tags of finished files and renders."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dgx_music.errors import FailedPrecondition, NotFound, Unavailable
from export_service.formats.codecs import CODECS
from export_service.formats.m4a_file import DamagedFileError
from export_service.formats.provenance import Signer
from export_service.formats.reader import FinishedAudio, open_sequential
from export_service.library.audio_library import AudioLibrary
from export_service.library.file_locks import FileLocks
from export_service.library.filesystem import fsync_and_compute_sha256, translate_disk_errors
from export_service.library.manifests import remove_staged
from export_service.library.renders import Render
from export_service.library.store import translate_file_errors
from export_service.retagging.tag_edit import COVER, TagEdit
from export_service.retagging.tag_replacement import write_with_tags
from export_service.tagging import mp4
from export_service.tagging.containers import DAMAGE_ERRORS, DISCLOSURES, SampleLayout, read_tags
from export_service.tagging.cover import WITHOUT_COVER
from export_service.tagging.disclosure import AiDisclosure
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

UNREADABLE_REASONS = ("FILE_NOT_FOUND", "RENDER_NOT_FOUND", "FILE_DAMAGED")
EDIT = 0
"""Stands for the attempt in the name of a staged file; attempts are numbered from 1."""


@dataclass(frozen=True)
class EditedFile:
    """A file after an edit of its tags."""

    path: Path
    size_bytes: int
    sha256: str
    marks: tuple[AiDisclosure, ...]
    """Where it discloses that it is AI-generated."""


class TagEditor:
    """Used on the event loop only. Writes one file at a time, in a thread of its own.

    An edit writes a copy of the file with other tags, signs it again, and moves it to the place of the file. The same
    edit of the same file gives the same bytes, except for the signature. A crash leaves the old file or the new one; if
    that is not the one whose hash the caller knows, repeating the edit returns the hash of the new one.

    An edit of the generation's file first changes its renders, whose hashes are beside them: whatever fails or crashes,
    the edit can be repeated, and meanwhile every file has the hash that is recorded. A render keeps those tags that
    were set for it alone.
    """

    def __init__(self, library: AudioLibrary, locks: FileLocks, signer: Signer | None = None) -> None:
        self._library, self._locks, self._signer = library, locks, signer
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="tags")
        self._tasks: set[asyncio.Task[EditedFile]] = set()

    async def edit(self, generation_id: str, render_id: str, edit: TagEdit) -> EditedFile:
        """Edits the generation's file with its renders, or one render. Once started, an edit is completed even if the
        caller has gone. Waits for renders of the generation.

        Raises NotFound if there is no such file, FailedPrecondition if its format has no place for a cover,
        and errors of the disk; the file is then as it was before, but some of its renders may be edited.
        """
        task = asyncio.create_task(self._edit(generation_id, render_id, edit))
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """Waits until the edits in progress have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._worker.shutdown(wait=False)

    def _on_done(self, task: asyncio.Task[EditedFile]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("tag_edit_failed", error=str(error))

    async def _edit(self, generation_id: str, render_id: str, edit: TagEdit) -> EditedFile:
        write = partial(self._write, generation_id, render_id, edit)
        async with self._locks.edit_lock(generation_id):
            return await asyncio.get_running_loop().run_in_executor(self._worker, write)

    # The methods below run on the worker thread.

    def _write(self, generation_id: str, render_id: str, edit: TagEdit) -> EditedFile:
        if render_id:
            render = self._load_render(generation_id, render_id)
            _require_place_for_cover(self._find_render(generation_id, render_id), edit)
            return self._write_render(generation_id, render, edit, edit.changed.union(render.file.own_tags))
        path = self._library.locate(generation_id)
        _require_place_for_cover(path, edit)
        for render in self._load_renders(generation_id):
            self._write_inheriting_render(generation_id, render, edit)
        staged = self._library.staging_path(generation_id, EDIT)
        with self._edited_copy(path, staged, generation_id, edit) as (edited, source):
            self._library.replace(staged, generation_id, source)
        log.info("tags_edited", generation_id=generation_id)
        return edited

    def _write_inheriting_render(self, generation_id: str, render: Render, edit: TagEdit) -> None:
        """Edits what a render has from its source."""
        inherited = edit.without(render.file.own_tags)
        if CODECS[render.file.format].container in WITHOUT_COVER:
            inherited = inherited.without({COVER})
        if not inherited.changed:
            return
        try:
            self._write_render(generation_id, render, inherited, render.file.own_tags)
        except (NotFound, Unavailable) as error:
            # A render that was deleted or is damaged has no tags to keep up with those of its source.
            if error.reason not in UNREADABLE_REASONS:
                raise
            log.warning("render_not_edited", render_id=render.render_id, error=error.message)

    def _write_render(self, generation_id: str, render: Render, edit: TagEdit, own_tags: Collection[str]) -> EditedFile:
        staged = self._library.renders.staging_path(render.render_id)
        path = self._find_render(generation_id, render.render_id)
        with self._edited_copy(path, staged, generation_id, edit) as (edited, source):
            file = replace(
                render.file,
                file_size_bytes=edited.size_bytes,
                file_sha256=edited.sha256,
                marks=edited.marks,
                own_tags=tuple(sorted(own_tags)),
            )
            self._library.replace_render(staged, generation_id, source, replace(render, file=file))
        log.info("tags_edited", generation_id=generation_id, render_id=render.render_id)
        return edited

    def _load_render(self, generation_id: str, render_id: str) -> Render:
        self._find_render(generation_id, render_id)
        with translate_disk_errors("searching the library"):
            render = self._library.renders.load(generation_id, render_id)
        if render is None:
            raise NotFound("render", render_id, "its description is from another version; render it again")
        return render

    def _find_render(self, generation_id: str, render_id: str) -> Path:
        with translate_disk_errors("searching the library"):
            return self._library.renders.find(generation_id, render_id)

    def _load_renders(self, generation_id: str) -> list[Render]:
        """Returns the renders, without those whose description is from another version: Render makes them anew."""
        renders = self._library.renders
        with translate_disk_errors("searching the library"):
            found = [renders.load(generation_id, render_id) for render_id, *_ in renders.iter_renders(generation_id)]
        return [render for render in found if render is not None]

    @contextmanager
    def _edited_copy(
        self, path: Path, staged: Path, generation_id: str, edit: TagEdit
    ) -> Iterator[tuple[EditedFile, BinaryIO]]:
        """Writes a copy with other tags, and removes what the block leaves of it. Yields its description and the open
        file that it is a copy of.
        """
        try:
            with translate_file_errors(path), path.open("rb") as source:
                marks = self._write_copy(source, path, staged, generation_id, edit)
                with translate_disk_errors("writing the tags"):
                    yield EditedFile(path, staged.stat().st_size, fsync_and_compute_sha256(staged), marks), source
        finally:
            remove_staged(staged)

    def _write_copy(
        self, source: BinaryIO, path: Path, staged: Path, generation_id: str, edit: TagEdit
    ) -> tuple[AiDisclosure, ...]:
        """Returns where the copy discloses that it is AI-generated."""
        with open_sequential(path, header_only=True) as file:
            container = _container_of(file)
            signed_as = "RF64" if file.format == "RF64" else container
            samples = SampleLayout(file.samplerate, file.channels, 0, file.frames)
        tags = edit.apply(read_tags(path, generation_id))
        with translate_disk_errors("writing the tags"):
            try:
                write_with_tags(source, staged, container, tags, samples)
            except DAMAGE_ERRORS as error:
                raise DamagedFileError(f"its structure is not as it was written ({error})") from error
            if self._signer is not None:
                return (*DISCLOSURES[container], self._signer.sign(staged, signed_as, tags))
            if container == "M4A":
                mp4.discard_manifest(staged)
        return DISCLOSURES[container]


def _container_of(file: FinishedAudio) -> str:
    return "WAV" if file.format in ("RF64", "WAVEX") else file.format


def _require_place_for_cover(path: Path, edit: TagEdit) -> None:
    """Raises FailedPrecondition if the edit adds a cover to a file that has no place for one."""
    if edit.cover is None:
        return
    with translate_file_errors(path), open_sequential(path, header_only=True) as file:
        container = _container_of(file)
    if container in WITHOUT_COVER:
        others = ", ".join(name for name in DISCLOSURES if name not in WITHOUT_COVER)
        raise FailedPrecondition(
            f"cover: {container} files have no place for a picture; render the music in one of {others}",
            reason="COVER_NOT_SUPPORTED",
        )
