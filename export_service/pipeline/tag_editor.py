"""Edits the tags of finished files and renders."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dgx_music.errors import FailedPrecondition, NotFound
from export_service.formats.provenance import Signer
from export_service.formats.reader import open_sequential
from export_service.library.file_locks import FileLocks
from export_service.library.filesystem import fsync_and_compute_sha256, translate_disk_errors
from export_service.library.manifests import remove_staged
from export_service.library.renders import Render
from export_service.library.store import Library, translate_file_errors
from export_service.retagging.tag_edit import TagEdit
from export_service.retagging.tag_replacement import write_with_tags
from export_service.tagging import mp4
from export_service.tagging.containers import DISCLOSURES, SampleLayout, read_tags
from export_service.tagging.cover import WITHOUT_COVER
from export_service.tagging.disclosure import AiDisclosure
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

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
    that is not the one whose hash the caller knows, repeating the edit returns the hash of the new one. Renders keep
    their tags when their source is edited.
    """

    def __init__(self, library: Library, locks: FileLocks, signer: Signer | None = None) -> None:
        self._library, self._locks, self._signer = library, locks, signer
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="tags")
        self._tasks: set[asyncio.Task[EditedFile]] = set()

    async def edit(self, generation_id: str, render_id: str, edit: TagEdit) -> EditedFile:
        """Edits the generation's file, or a render of it. Once started, an edit is completed even if the caller has
        gone. Waits for renders of the generation.

        Raises NotFound if there is no such file, FailedPrecondition if its format has no place for a cover,
        and errors of the disk; the file is then as it was before.
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
        library = self._library
        path = self._find(generation_id, render_id)
        staged = library.renders.staging_path(render_id) if render_id else library.staging_path(generation_id, EDIT)
        try:
            with translate_file_errors(path), path.open("rb") as source:
                marks = self._write_copy(source, path, staged, generation_id, edit)
                with translate_disk_errors("writing the tags"):
                    edited = EditedFile(path, staged.stat().st_size, fsync_and_compute_sha256(staged), marks)
                    if render_id:
                        library.replace_render(staged, generation_id, source, self._describe(generation_id, edited))
                    else:
                        library.replace(staged, generation_id, source)
        finally:
            remove_staged(staged)
        log.info("tags_edited", generation_id=generation_id, render_id=render_id)
        return edited

    def _find(self, generation_id: str, render_id: str) -> Path:
        with translate_disk_errors("searching the library"):
            if render_id:
                return self._library.renders.find(generation_id, render_id)
            return self._library.require(generation_id)

    def _write_copy(
        self, source: BinaryIO, path: Path, staged: Path, generation_id: str, edit: TagEdit
    ) -> tuple[AiDisclosure, ...]:
        """Returns where the copy discloses that it is AI-generated."""
        with open_sequential(path) as file:
            container = "WAV" if file.format in ("RF64", "WAVEX") else file.format
            signed_as = "RF64" if file.format == "RF64" else container
            samples = SampleLayout(file.samplerate, file.channels, 0, file.frames)
        if edit.cover is not None and container in WITHOUT_COVER:
            others = ", ".join(name for name in DISCLOSURES if name not in WITHOUT_COVER)
            raise FailedPrecondition(
                f"cover: {container} files have no place for a picture; render the music in one of {others}",
                reason="COVER_NOT_SUPPORTED",
            )
        tags = edit.apply(read_tags(path, generation_id))
        with translate_disk_errors("writing the tags"):
            write_with_tags(source, staged, container, tags, samples)
            if self._signer is not None:
                return (*DISCLOSURES[container], self._signer.sign(staged, signed_as, tags))
            if container == "M4A":
                mp4.discard_manifest(staged)
        return DISCLOSURES[container]

    def _describe(self, generation_id: str, edited: EditedFile) -> Render:
        """Returns the render with its new description."""
        render = self._library.renders.load(generation_id, edited.path.stem)
        if render is None:
            raise NotFound("render", edited.path.stem, "its description is from another version; render it again")
        file = replace(render.file, file_size_bytes=edited.size_bytes, file_sha256=edited.sha256, marks=edited.marks)
        return replace(render, file=file)
