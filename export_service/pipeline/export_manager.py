"""Runs exports and clip imports, and finds audio in them and in the library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from export_service.library.audio_library import Libraries, RangeFile, SignedUrl
from export_service.library.file_locks import FileLocks
from export_service.library.filesystem import mark_used, require_free_space, translate_disk_errors
from export_service.library.local_libraries import local_libraries
from export_service.library.store import SPOOL, file_not_found
from export_service.pipeline.attempt_processor import ExportSpec
from export_service.pipeline.audio_waiters import AudioWaiters
from export_service.pipeline.clip_import import Clip, ClipImport, ClipLimits
from export_service.pipeline.export_session import ExportSession
from export_service.pipeline.recording_registry import RecordingRegistry, SpoolRetention
from export_service.streaming.audio_stream import AudioLevel, FinalAudio, LiveAudio
from export_service.streaming.recording import AttemptSpec, Recording, received_audio_not_found
from export_service.streaming.spool import LIVE_AUDIO_EXPIRED, ReceivedAudio, SpoolFolder
from export_service.threads import run_in_thread
from service_runtime.file_modes import PRIVATE, FileModes
from service_runtime.health_thread import HealthThread

BuildSpec = Callable[[Mapping[str, Any]], ExportSpec]
"""Returns what file to make from the header with which samples were sent."""


class ExportManager:
    """Used on the event loop only."""

    def __init__(
        self,
        data_dir: Path,
        retention: SpoolRetention,
        clip_limits: ClipLimits,
        modes: FileModes = PRIVATE,
        *,
        libraries: Libraries | None = None,
        locks: FileLocks | None = None,
    ) -> None:
        """The libraries are those of the data directory by default. `locks` are shared with what else uses them."""
        libraries = libraries or local_libraries(data_dir, modes)
        self.library, self.inventory, self._clips = libraries.outputs, libraries.inventory, libraries.clips
        self.locks = locks or FileLocks()
        self._clip_limits = clip_limits
        self._recordings = RecordingRegistry(self.library, SpoolFolder(data_dir / SPOOL), retention)
        self._check_thread = HealthThread()
        self._data_dir = data_dir
        self._waiters = AudioWaiters()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_draining = False

    async def start(self) -> None:
        """Opens the library, removes what earlier processes left incomplete, and restores the spools they kept."""
        with translate_disk_errors("opening the library"):
            await run_in_thread(self.library.open)
            await run_in_thread(self._clips.open)
            await self._recordings.start()

    async def check(self) -> None:
        """Raises Unavailable if files can't be written, ResourceExhausted if the disk is full."""
        with translate_disk_errors("checking the library"):
            await self._check_thread.run(self._check)

    def _check(self) -> None:
        self.library.check()
        self._clips.check()
        require_free_space(self._data_dir)

    def drain(self) -> None:
        """Ends the calls that are waiting for audio."""
        self._is_draining = True
        self._recordings.release_listeners()
        self._waiters.notify_all()

    async def stop(self) -> None:
        """Waits for the remaining cleanup. Call it when no export is running any more."""
        await asyncio.gather(*self._tasks)
        await self._recordings.stop()
        await self._check_thread.stop()

    @asynccontextmanager
    async def open_session(self, attempt: AttemptSpec, spec: ExportSpec) -> AsyncIterator[ExportSession]:
        """Opens an export of one attempt. When the block ends, the export is complete, or all of its files are removed
        except the samples, if all of them have arrived.

        Aborts an older attempt in progress. Raises Aborted if there is a newer attempt, or if this one is already in
        progress.
        """
        recording, replaced = await self._recordings.register(attempt)
        async with self._close_after(ExportSession(recording, spec, self.library), recording) as session:
            if replaced is not None:
                await self._recordings.remove_spool(replaced)
            await session.open()
            self._waiters.notify(attempt.generation_id)
            yield session

    @asynccontextmanager
    async def continue_session(
        self, attempt: AttemptSpec, spec: ExportSpec, frames: int
    ) -> AsyncIterator[ExportSession]:
        """Opens an export that goes on with the `frames` of a suspended attempt, which are kept until it is complete.

        Raises NotFound if there are not just these, and the same errors as `open_session`.
        """
        recording = await self._recordings.continue_suspended(attempt, frames)
        async with self._close_after(ExportSession(recording, spec, self.library), recording) as session:
            await session.continue_suspended()
            self._waiters.notify(attempt.generation_id)
            yield session

    async def find_suspended(self, generation_id: str, attempt: int) -> ReceivedAudio | None:
        """Returns the samples to go on with; None if all are there. Raises NotFound if none are."""
        received = (await self._recordings.find_received(generation_id, attempt)).received
        return None if received is None or received.is_complete else received

    @asynccontextmanager
    async def resume_session(
        self, generation_id: str, attempt: int, build_spec: BuildSpec
    ) -> AsyncIterator[ExportSession]:
        """Opens an export of the samples that an earlier attempt received. When the block ends, the export is complete,
        or the samples are still kept.

        Raises NotFound if there are none, or none that can be used, and the same errors as `open_session`.
        """
        previous = await self._recordings.find_received(generation_id, attempt)
        assert previous.received is not None
        try:
            spec = build_spec(previous.received.header)
        except (InvalidArgument, ValueError) as error:
            await self._recordings.discard(generation_id)
            raise received_audio_not_found(generation_id, f"its header can't be used any more ({error})") from error
        recording = self._recordings.resume(previous, attempt)
        async with self._close_after(ExportSession(recording, spec, self.library), recording) as session:
            self._waiters.notify(generation_id)
            yield session

    @asynccontextmanager
    async def _close_after(self, session: ExportSession, recording: Recording) -> AsyncIterator[ExportSession]:
        try:
            yield session
        finally:
            # Shielded: a second cancellation of the caller must not interrupt the cleanup.
            await asyncio.shield(self._create_task(self._close_session(session, recording)))

    async def open_audio(self, generation_id: str, level: AudioLevel, wait_seconds: float) -> LiveAudio | FinalAudio:
        """Returns the audio of a generation or clip; waits for it to become available if there is none yet.

        Raises NotFound if there is still none after `wait_seconds`.
        """
        deadline = asyncio.get_running_loop().time() + wait_seconds
        with self._waiters.wait_for(generation_id) as available:
            while True:
                available.clear()
                audio = await self._find_audio(generation_id, level)
                if audio is not None:
                    return audio
                if not wait_seconds:
                    raise _audio_not_found(generation_id, "check the id, or set wait_seconds to wait for the audio")
                if self._is_draining:
                    raise Unavailable("the export service is shutting down", reason="DRAINING", retry_after_seconds=1)
                try:
                    # Limits the waiting only: audio that exists is returned however long the lookup takes.
                    async with asyncio.timeout_at(deadline):
                        await available.wait()
                except TimeoutError:
                    raise _audio_not_found(generation_id, f"none became available in {wait_seconds:g} s") from None

    async def open_render_audio(self, generation_id: str, render_id: str) -> FinalAudio:
        """Returns the audio of a render. Raises NotFound."""
        return await FinalAudio.open(generation_id, await self.find_path(generation_id, render_id))

    async def import_clip(self, data: AsyncIterator[bytes]) -> Clip:
        """Imports the bytes of an audio file as a clip. Unless it returns, all files of the import are removed.

        Raises InvalidArgument if the file is not acceptable as a clip.
        """
        clip_import = ClipImport(self._clips, self._clip_limits)
        try:
            async for chunk in data:
                await clip_import.write(chunk)
            return await clip_import.commit()
        finally:
            await asyncio.shield(self._create_task(clip_import.close()))

    async def find_path(self, generation_id: str, render_id: str = "") -> Path:
        """Returns the path of a generation's file, of a render of it, or of a clip. Raises NotFound."""
        with translate_disk_errors("searching the library"):
            path = await run_in_thread(self._find_path, generation_id, render_id)
        if path is None:
            raise file_not_found(generation_id)
        return path

    async def open_file(self, generation_id: str, render_id: str = "", *, manifest: bool = False) -> RangeFile:
        """Opens a generation's file, a render of it, a clip, or the manifest beside one of these, for a download.

        Raises NotFound.
        """
        with translate_disk_errors("opening the file"):
            file = await run_in_thread(self.library.open_file, generation_id, render_id, manifest=manifest)
            if file is None:
                file = await run_in_thread(self._clips.open_file, generation_id, manifest=manifest)
        if file is None:
            raise file_not_found(generation_id)
        return file

    async def sign_url(self, generation_id: str, render_id: str, expires: timedelta) -> SignedUrl:
        """Returns a URL of a generation's file, of a render of it, or of a clip.

        Raises NotFound, and FailedPrecondition if the library is not in object storage.
        """
        signed = await run_in_thread(self.library.sign_url, generation_id, render_id, expires)
        if signed is None:
            signed = await run_in_thread(self._clips.sign_url, generation_id, "", expires)
        if signed is None:
            raise file_not_found(generation_id)
        return signed

    def raise_if_exporting(self, generation_id: str) -> None:
        """Raises FailedPrecondition while the generation is being exported."""
        recording = self._recordings.get(generation_id)
        if recording is not None and recording.is_in_progress and not recording.closed.is_set():
            raise FailedPrecondition(
                f"generation {generation_id} is being exported; cancel it, or wait until it is finished",
                reason="EXPORT_IN_PROGRESS",
            )

    async def delete(self, generation_id: str, render_id: str = "") -> None:
        """Deletes one render, or if `render_id` is empty, the generation's file, renders and spool, or the clip.

        Raises FailedPrecondition while the generation is being exported, NotFound if there is nothing to delete.
        """
        if render_id:
            with translate_disk_errors("deleting the render"):
                await run_in_thread(self.library.delete_render, generation_id, render_id)
            return
        self.raise_if_exporting(generation_id)
        with translate_disk_errors("deleting the file"):
            has_spool = await self._recordings.discard(generation_id)
            has_file = await run_in_thread(self.library.delete, generation_id)
            has_file = has_file or await run_in_thread(self._clips.delete, generation_id)
        if not (has_file or has_spool):
            raise file_not_found(generation_id)

    async def discard_samples(self, generation_id: str) -> None:
        """Deletes the spool of an attempt that has ended, if it is kept. Raises FailedPrecondition as `delete` does."""
        self.raise_if_exporting(generation_id)
        with translate_disk_errors("deleting the samples"):
            await self._recordings.discard(generation_id)

    def _find_path(self, generation_id: str, render_id: str = "") -> Path | None:
        """Runs in a thread. Marks a render or clip as used, since the caller is about to read it."""
        if not render_id and (output := self.library.find(generation_id)) is not None:
            return output
        path = self.library.renders.find(generation_id, render_id) if render_id else self._clips.find(generation_id)
        if path is not None:
            mark_used(path)
        return path

    async def _close_session(self, session: ExportSession, recording: Recording) -> None:
        await session.close()
        await self._recordings.close(recording)
        if recording.is_completed:
            self._waiters.notify(recording.spec.generation_id)

    async def _find_audio(self, generation_id: str, level: AudioLevel) -> LiveAudio | FinalAudio | None:
        recording = self._recordings.get(generation_id)
        if (
            recording is not None
            and recording.is_readable
            and recording.abort_error is None
            and (level is AudioLevel.LIVE or (level is AudioLevel.ANY and not recording.is_completed))
        ):
            return LiveAudio(recording)
        while True:
            with translate_disk_errors("searching the library"):
                path = await run_in_thread(self._find_path, generation_id)
            if path is None:
                return None
            if level is AudioLevel.LIVE:
                raise NotFound("live audio", generation_id, LIVE_AUDIO_EXPIRED)
            with suppress(NotFound):  # It was deleted meanwhile, or replaced by one of another format.
                return await FinalAudio.open(generation_id, path)

    def _create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _audio_not_found(generation_id: str, hint: str) -> NotFound:
    return NotFound("audio", generation_id, hint)
