"""Creates renders, each only once however many callers request it at the same time."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dgx_music.errors import Unavailable
from export_service.dsp.arrays import Samples
from export_service.dsp.measurement import SignalMeter
from export_service.dsp.normalization import LoudnessTarget
from export_service.dsp.resampling import Resampler, resampled_frame_count
from export_service.formats.codecs import CODECS
from export_service.formats.m4a_file import require_encoder
from export_service.formats.provenance import Signer
from export_service.formats.reader import FinishedAudio, open_sequential
from export_service.formats.writer import AudioFile
from export_service.library.audio_library import AudioLibrary
from export_service.library.file_locks import FileLocks
from export_service.library.filesystem import translate_disk_errors
from export_service.library.manifests import remove_staged
from export_service.library.mastered_file import MasteredFile
from export_service.library.regular_files import file_id
from export_service.library.renders import Render, RenderSpec
from export_service.library.store import file_replaced, read_audio_properties, translate_file_errors
from export_service.pipeline.export_metrics import count_file
from export_service.pipeline.mastering import master_to_file, resolve_loudness_target
from export_service.tagging.containers import read_tags
from export_service.tagging.sections import scale_sections
from export_service.tagging.tags import FileTags, clean_publication
from export_service.threads import run_in_thread
from service_runtime.audio.block_size import BLOCK_FRAMES
from service_runtime.audio.output_options import OutputOptions
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

OpenSource = Callable[[], AbstractContextManager[FinishedAudio]]
"""Opens the exported file for reading from its beginning."""

MAX_CONCURRENT_RENDERS = 2
"""Further renders wait, since an encoder keeps a whole core busy."""


class Renderer:
    """Used on the event loop only. Encodes on threads of its own, so that listeners do not wait for an encoder."""

    def __init__(self, library: AudioLibrary, signer: Signer | None = None, locks: FileLocks | None = None) -> None:
        self._library, self._signer, self._locks = library, signer, locks or FileLocks()
        self._workers = ThreadPoolExecutor(MAX_CONCURRENT_RENDERS, thread_name_prefix="render")
        self._tasks: dict[str, asyncio.Task[Render]] = {}
        self._is_draining = False

    async def render(self, generation_id: str, options: OutputOptions, default_target: LoudnessTarget) -> Render:
        """Returns the render, from the library if it already exists.

        Once started, a render is completed even if every caller has gone. Raises NotFound if the generation has no
        file, InvalidArgument if the options do not suit it, FailedPrecondition if the encoder is not installed, and
        errors of the disk; after an error, no file of the render is left.
        """
        require_encoder(options.format)
        spec = await run_in_thread(self._resolve, generation_id, options, default_target)
        render_id = spec.render_id(generation_id)
        task = self._tasks.get(render_id)
        if task is None:
            task = asyncio.create_task(self._load_or_create(generation_id, render_id, spec))
            self._tasks[render_id] = task
            task.add_done_callback(lambda done: self._on_done(render_id, done))
        return await asyncio.shield(task)

    def drain(self) -> None:
        """Aborts the renders in progress and removes their files."""
        self._is_draining = True

    async def stop(self) -> None:
        """Waits until the renders in progress have ended."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._workers.shutdown(wait=False)

    async def _load_or_create(self, generation_id: str, render_id: str, spec: RenderSpec) -> Render:
        with translate_disk_errors("searching the library"):
            existing = await run_in_thread(self._library.renders.load, generation_id, render_id)
        if existing is not None:
            return existing
        create = partial(self._create, generation_id, render_id, spec)
        async with self._locks.render_lock(generation_id):
            return await asyncio.get_running_loop().run_in_executor(self._workers, copy_context().run, create)

    def _on_done(self, render_id: str, task: asyncio.Task[Render]) -> None:
        del self._tasks[render_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("render_failed", render_id=render_id, error=str(error))

    # The methods below run in threads.

    def _resolve(self, generation_id: str, options: OutputOptions, default_target: LoudnessTarget) -> RenderSpec:
        path = self._library.locate(generation_id)
        with translate_file_errors(path):
            source = read_audio_properties(path)
        seconds = source.frames / source.sample_rate_hz
        options.check_for_source("output", source.sample_rate_hz, source.channels, seconds)
        rate, channels = options.resolve_for_source(source.sample_rate_hz, source.channels)
        target = resolve_loudness_target(options, default_target)
        return RenderSpec(
            options.format, rate, channels, target, options.bit_rate_kbps, options.quality, options.publication
        )

    def _create(self, generation_id: str, render_id: str, spec: RenderSpec) -> Render:
        path, staged = self._library.locate(generation_id), self._library.renders.staging_path(render_id)
        try:
            with translate_file_errors(path), path.open("rb") as source:
                open_source = partial(_open_same_file, path, source)
                tags = self._read_tags(path, generation_id, spec)
                rendered = self._measure_and_master(staged, render_id, spec, open_source, tags)
                own_tags = [name for name, text in vars(clean_publication(spec.publication)).items() if text]
                rendered = replace(rendered, own_tags=tuple(sorted(own_tags)))
                with translate_disk_errors("writing the render"):
                    committed = self._library.add_render(
                        staged, generation_id, source, render_id, CODECS[spec.format].extension, rendered
                    )
        finally:
            remove_staged(staged)
        count_file(rendered)
        log.info("rendered", generation_id=generation_id, render_id=render_id, format=spec.format.value)
        return Render(render_id, committed, rendered)

    def _read_tags(self, path: Path, generation_id: str, spec: RenderSpec) -> FileTags:
        """Returns the tags of the exported file, with the render's publication and the sections at its sample rate."""
        tags = read_tags(path, generation_id)
        source = read_audio_properties(path)
        frames = resampled_frame_count(source.frames, source.sample_rate_hz, spec.sample_rate_hz)
        sections = scale_sections(tags.sections, source.sample_rate_hz, spec.sample_rate_hz, frames)
        return replace(
            tags, sections=sections, publication=clean_publication(spec.publication).or_else(tags.publication)
        )

    def _measure_and_master(
        self, staged: Path, render_id: str, spec: RenderSpec, open_source: OpenSource, tags: FileTags
    ) -> MasteredFile:
        with translate_disk_errors("writing the render"):
            measurement = SignalMeter(spec.sample_rate_hz, spec.channels, staged.parent)
        with closing(measurement):
            frames = 0
            for block in self._blocks(open_source, spec):
                with translate_disk_errors("writing the render"):
                    measurement.feed(block)
                frames += len(block)
            audio = AudioFile(
                format=spec.format,
                sample_rate_hz=spec.sample_rate_hz,
                channels=spec.channels,
                frames=frames,
                tags=tags,
                seed=uuid.UUID(render_id).int,
                signer=self._signer,
                bit_rate_kbps=spec.bit_rate_kbps,
                quality=spec.quality,
            )
            with translate_disk_errors("writing the render"):
                return master_to_file(staged, audio, measurement, spec.target, lambda: self._blocks(open_source, spec))

    def _blocks(self, open_source: OpenSource, spec: RenderSpec) -> Iterator[Samples]:
        """Yields all samples of the exported file, at the render's sample rate and channel count."""
        with open_source() as file:
            converter = Resampler(file.samplerate, file.channels, spec.sample_rate_hz, spec.channels)
            while len(block := file.read(BLOCK_FRAMES)):
                if self._is_draining:
                    raise Unavailable("the export service is shutting down", reason="DRAINING", retry_after_seconds=1)
                yield converter.feed(block)
            yield converter.finish()


@contextmanager
def _open_same_file(path: Path, source: BinaryIO) -> Iterator[FinishedAudio]:
    """Opens the file `source` a second time, from its beginning, because several readers may be active at a time.

    Raises NotFound if another file is at the path by now.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise file_replaced(file_id(path)) from None
    with file:
        if not os.path.sameopenfile(file.fileno(), source.fileno()):
            raise file_replaced(file_id(path))
        with open_sequential(file.fileno()) as decoder:
            yield decoder
