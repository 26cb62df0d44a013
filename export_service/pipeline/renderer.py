"""Makes renders: each once, however many ask for it at the same time."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from dgx_music.errors import NotFound, Unavailable
from export_service.dsp.arrays import Samples
from export_service.dsp.measurement import SignalMeter
from export_service.dsp.normalization import LoudnessTarget
from export_service.dsp.resampling import Resampler
from export_service.formats.codecs import CODECS
from export_service.formats.provenance import Signer
from export_service.formats.reader import open_sequential
from export_service.formats.tags import FileTags
from export_service.formats.writer import AudioFile
from export_service.library.filesystem import disk_errors
from export_service.library.mastered_file import Finished
from export_service.library.renders import Render, RenderOptions
from export_service.library.store import Library, file_errors, format_of
from export_service.pipeline.mastering import aim_for, finish
from export_service.threads import on_thread
from service_runtime.audio.block_size import BLOCK_FRAMES
from service_runtime.audio.output_options import OutputOptions
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

Source = Callable[[], AbstractContextManager[Any]]
"""Opens the finished file to be read from its beginning."""

AT_ONCE = 2
"""Renders that are made at a time; the others wait. An encoder takes a whole core."""


class Renderer:
    """Lives on the event loop; the work is done on threads of its own, so that listeners need not wait for it."""

    def __init__(self, library: Library, signer: Signer | None = None) -> None:
        self._library, self._signer = library, signer
        self._workers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="render")
        self._under_way: dict[str, asyncio.Task[Render]] = {}
        self._draining = False

    async def render(self, generation_id: str, options: OutputOptions, default_aim: LoudnessTarget) -> Render:
        """The render, made now or before. One that is being made is finished even if nobody waits for it any more.

        Raises NotFound where the generation has no file, and what the disk has to say; then nothing is left of it.
        """
        resolved = await on_thread(self._resolve, generation_id, options, default_aim)
        render_id = resolved.render_id(generation_id)
        task = self._under_way.get(render_id)
        if task is None:
            task = self._under_way[render_id] = asyncio.create_task(self._made(generation_id, render_id, resolved))
            task.add_done_callback(lambda done: self._ended(render_id, done))
        return await asyncio.shield(task)

    def drain(self) -> None:
        """Ends what is under way; nothing is left of it."""
        self._draining = True

    async def stop(self) -> None:
        """Waits for the end of what was under way."""
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        self._workers.shutdown(wait=False)

    async def _made(self, generation_id: str, render_id: str, options: RenderOptions) -> Render:
        with disk_errors("looking into the library"):
            before = await on_thread(self._library.renders.made_before, generation_id, render_id)
        if before is not None:
            return before
        work = partial(self._make, generation_id, render_id, options)
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    def _ended(self, render_id: str, task: asyncio.Task[Render]) -> None:
        del self._under_way[render_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("render ended early", render_id=render_id, error=str(error))

    # What follows runs on threads.

    def _resolve(self, generation_id: str, options: OutputOptions, default_aim: LoudnessTarget) -> RenderOptions:
        path = self._find(generation_id)
        with file_errors(path):
            source = format_of(path)
        rate, channels = options.resolve_for_source(source.sample_rate_hz, source.channels)
        return RenderOptions(options.format, rate, channels, aim_for(options, default_aim))

    def _find(self, generation_id: str) -> Path:
        with disk_errors("looking into the library"):
            path = self._library.find(generation_id)
        if path is None:
            raise NotFound("file", generation_id, "it was not exported, or it was deleted")
        return path

    def _make(self, generation_id: str, render_id: str, options: RenderOptions) -> Render:
        path, part = self._find(generation_id), self._library.renders.part(render_id)
        try:
            with file_errors(path), path.open("rb") as source:
                opened = partial(_opened, path, source)
                with opened() as file:
                    tags = FileTags.parse_comment(file.comment, generation_id)
                finished = self._write(part, render_id, options, opened, tags)
                with disk_errors("writing the render"), self._library.unchanged(generation_id, source):
                    landed = self._library.renders.land(
                        part, generation_id, render_id, CODECS[options.format].extension, finished
                    )
        finally:
            part.unlink(missing_ok=True)
        log.info("rendered", generation_id=generation_id, render_id=render_id, format=options.format.value)
        return Render(render_id, landed, finished)

    def _write(self, part: Path, render_id: str, options: RenderOptions, source: Source, tags: FileTags) -> Finished:
        with disk_errors("writing the render"):
            measurement = SignalMeter(options.sample_rate_hz, options.channels, part.parent)
        with closing(measurement):
            return self._finish(part, render_id, options, source, tags, measurement)

    def _finish(
        self,
        part: Path,
        render_id: str,
        options: RenderOptions,
        source: Source,
        tags: FileTags,
        measurement: SignalMeter,
    ) -> Finished:
        frames = 0
        for block in self._blocks(source, options):
            with disk_errors("writing the render"):
                measurement.feed(block)
            frames += len(block)
        audio = AudioFile(
            format=options.format,
            sample_rate_hz=options.sample_rate_hz,
            channels=options.channels,
            frames=frames,
            tags=tags,
            seed=uuid.UUID(render_id).int,
            signer=self._signer,
        )
        with disk_errors("writing the render"):
            return finish(part, audio, measurement, options.aim, lambda: self._blocks(source, options))

    def _blocks(self, source: Source, options: RenderOptions) -> Iterator[Samples]:
        """All samples of the finished file, at the render's sample rate and channel count."""
        with source() as file:
            converter = Resampler(file.samplerate, file.channels, options.sample_rate_hz, options.channels)
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                if self._draining:
                    raise Unavailable("the export service is going down", reason="DRAINING", retry_after_seconds=1)
                yield converter.feed(block)
            yield converter.finish()


@contextmanager
def _opened(path: Path, source: BinaryIO) -> Iterator[Any]:
    """The file anew, from its beginning: more than one reader may be under way at a time.

    Raises NotFound where the path has another file by now.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise _gone(path) from None
    with file:
        if not os.path.sameopenfile(file.fileno(), source.fileno()):
            raise _gone(path)
        with open_sequential(file.fileno()) as decoder:
            yield decoder


def _gone(path: Path) -> NotFound:
    return NotFound("file", path.stem, "it was deleted or made anew meanwhile")
