"""What is recorded now, what was until lately, and what the library has: attempts, listeners and files together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dgx_music.errors import Aborted, FailedPrecondition, NotFound, Unavailable
from export_service.library.file_locks import Usage
from export_service.library.filesystem import disk_errors, mark_used
from export_service.library.inventory import Inventory
from export_service.library.store import CLIPS, Library, format_of
from export_service.pipeline.clip_import import Clip, ClipImport, ClipLimits
from export_service.pipeline.export_session import Finish, Session
from export_service.streaming.audio_stream import FinalAudio, Level, LiveAudio
from export_service.streaming.recording import Recording, Take, superseded
from export_service.streaming.spool import BYTES_PER_SAMPLE, SpoolFolder
from export_service.threads import on_thread
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

SPOOL = "spool"


class Exporter:
    """Lives on the event loop. The newest attempt at a generation is the one that counts."""

    def __init__(self, data_dir: Path, spool_keep_seconds: float, clip_limits: ClipLimits) -> None:
        self.library = Library(data_dir)
        self.inventory, self.usage = Inventory(data_dir), Usage()
        self._clips = Library(data_dir, CLIPS)
        self._clip_limits = clip_limits
        self._spools = SpoolFolder(data_dir / SPOOL)
        self._keep_seconds = spool_keep_seconds
        self._recordings: dict[str, Recording] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self._arrivals: dict[str, set[asyncio.Event]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    async def start(self) -> None:
        """Opens the library, sweeps what earlier processes broke off, and takes over the spools that they kept."""
        for recording, age_seconds in await on_thread(self._open):
            self._recordings[recording.take.generation_id] = recording
            self._keep(recording, self._keep_seconds - age_seconds)

    async def check(self) -> None:
        """Raises where files can't be written."""
        with disk_errors("checking the library"):
            await on_thread(self.library.check)
            await on_thread(self._clips.check)

    def drain(self) -> None:
        """Ends the calls that wait for audio to begin."""
        self._draining = True
        for generation_id in self._arrivals:
            self._announce(generation_id)

    async def stop(self) -> None:
        """Waits for the last cleaning up. Call it when no export runs any more."""
        for expiry in self._expiries.values():
            expiry.cancel()
        await asyncio.gather(*self._tasks)

    @asynccontextmanager
    async def session(self, take: Take, finish: Finish) -> AsyncIterator[Session]:
        """An export of one attempt; at the block's end it has landed, or nothing is left of it.

        Breaks off an older attempt in progress. Raises Aborted where a newer one has been seen, or this one is already
        in progress.
        """
        recording, former = await self._begin(take)
        session = Session(recording, finish, self.library)
        try:
            if former is not None and former.landed:
                await self._discard(former)
            await session.open()
            self._announce(take.generation_id)
            yield session
        finally:
            # Goes on even if the caller's cancellation strikes twice.
            await asyncio.shield(self._task(self._close(session, recording)))

    async def audio(self, generation_id: str, level: Level, wait_seconds: float) -> LiveAudio | FinalAudio:
        """What there is to listen to; waits for it to begin where there is none yet.

        Raises NotFound where none came in time.
        """
        arrival = asyncio.Event()
        self._arrivals.setdefault(generation_id, set()).add(arrival)
        until = asyncio.get_running_loop().time() + wait_seconds
        try:
            while True:
                arrival.clear()
                found = await self._look(generation_id, level)
                if found is not None:
                    return found
                if not wait_seconds:
                    raise _no_audio(generation_id, "ask for it with wait_seconds, or check the id")
                if self._draining:
                    raise Unavailable("the export service is going down", reason="DRAINING", retry_after_seconds=1)
                try:
                    async with asyncio.timeout_at(until):  # Only the waiting: what is there is found however slow.
                        await arrival.wait()
                except TimeoutError:
                    raise _no_audio(generation_id, f"none began within {wait_seconds:g} s") from None
        finally:
            self._arrivals[generation_id].discard(arrival)
            if not self._arrivals[generation_id]:
                del self._arrivals[generation_id]

    async def render_audio(self, generation_id: str, render_id: str) -> FinalAudio:
        """A render to listen to; raises NotFound."""
        return await FinalAudio.open(generation_id, await self.path(generation_id, render_id))

    async def import_clip(self, data: AsyncIterator[bytes]) -> Clip:
        """Makes a clip of the bytes of a WAV or FLAC file.

        Raises InvalidArgument where they are none that is taken; unless it returns, nothing is left.
        """
        clip = ClipImport(self._clips, self._clip_limits)
        try:
            async for piece in data:
                await clip.write(piece)
            return await clip.land()
        finally:
            await asyncio.shield(self._task(clip.close()))

    async def path(self, generation_id: str, render_id: str = "") -> Path:
        """Where the finished file, a render of it, or the clip, is; raises NotFound."""
        with disk_errors("looking into the library"):
            path = await on_thread(self._find, generation_id, render_id)
        if path is None:
            raise _no_file(generation_id)
        return path

    def require_made(self, generation_id: str) -> None:
        """Raises FailedPrecondition while the generation is being exported."""
        recording = self._recordings.get(generation_id)
        if recording is not None and recording.in_progress:
            raise FailedPrecondition(
                f"generation {generation_id} is being exported; cancel it, or wait until it is finished",
                reason="EXPORT_IN_PROGRESS",
            )

    async def delete(self, generation_id: str, render_id: str = "") -> None:
        """Deletes a render; without one the file, its renders and what is kept of its making, or the clip.

        Raises FailedPrecondition while it is being made, NotFound where there is nothing.
        """
        if render_id:
            with disk_errors("deleting the render"):
                await on_thread(self.library.delete_render, generation_id, render_id)
            return
        self.require_made(generation_id)
        recording = self._recordings.get(generation_id)
        kept = recording is not None and recording.landed
        with disk_errors("deleting the file"):
            if recording is not None and recording.landed:
                self._forget(recording)
                await on_thread(recording.spool.remove)
            deleted = await on_thread(self.library.delete, generation_id)
            deleted = deleted or await on_thread(self._clips.delete, generation_id)
        if not (deleted or kept):
            raise _no_file(generation_id)

    def remove_empty_folders(self) -> None:
        """Days on which nothing is left; blocks."""
        self.library.remove_empty_folders()
        self._clips.remove_empty_folders()

    def _find(self, generation_id: str, render_id: str = "") -> Path | None:
        """On a thread: the file that is going to be read."""
        if not render_id and (output := self.library.find(generation_id)) is not None:
            return output
        path = self.library.renders.find(generation_id, render_id) if render_id else self._clips.find(generation_id)
        if path is not None:
            mark_used(path)
        return path

    def _open(self) -> list[tuple[Recording, float]]:
        """On a thread: the recordings that can still be listened to, with their age."""
        with disk_errors("opening the library"):
            self.library.open()
            self._clips.open()
            self._spools.open()
            newest: dict[str, tuple[Recording, float]] = {}
            for kept in sorted(self._spools.kept(), key=lambda kept: kept.attempt, reverse=True):
                spool = self._spools.spool(kept.generation_id, kept.attempt)
                path = self.library.find(kept.generation_id)
                if path is None or kept.age_seconds > self._keep_seconds or kept.generation_id in newest:
                    spool.remove()
                    continue
                form = format_of(path)
                frames = kept.bytes // (form.channels * BYTES_PER_SAMPLE)
                take = Take(kept.generation_id, kept.attempt, form.sample_rate_hz, form.channels, frames)
                newest[kept.generation_id] = Recording.landed_before(take, spool), kept.age_seconds
        return list(newest.values())

    async def _begin(self, take: Take) -> tuple[Recording, Recording | None]:
        """The new recording, and the one that it takes the place of."""
        with disk_errors("looking into the library"):
            on_disk = await on_thread(self.library.attempt, take.generation_id)
        if take.attempt < on_disk:
            raise superseded(take, on_disk)
        while (former := self._recordings.get(take.generation_id)) is not None:
            if take.attempt < former.take.attempt:
                raise superseded(take, former.take.attempt)
            if take.attempt > former.take.attempt:
                former.break_off(superseded(former.take, take.attempt))
                break
            if former.in_progress:
                raise Aborted(
                    f"attempt {take.attempt} at generation {take.generation_id} is already being exported",
                    reason="ATTEMPT_IN_PROGRESS",
                )
            if former.closed.is_set():
                break
            await former.closed.wait()  # The same attempt once more: its files have the same names.
        if former is not None:
            self._forget(former)
        recording = Recording(take, self._spools.spool(take.generation_id, take.attempt))
        self._recordings[take.generation_id] = recording
        return recording, former

    async def _close(self, session: Session, recording: Recording) -> None:
        await session.close()
        current = self._recordings.get(recording.take.generation_id) is recording
        if current and recording.landed:
            self._keep(recording, self._keep_seconds)
            self._announce(recording.take.generation_id)
        elif current:
            self._forget(recording)
        elif recording.landed:
            await self._discard(recording)
        recording.closed.set()

    def _keep(self, recording: Recording, seconds: float) -> None:
        """Live listening ends after so many seconds."""
        loop = asyncio.get_running_loop()
        self._expiries[recording.take.generation_id] = loop.call_later(seconds, self._expire, recording)

    def _expire(self, recording: Recording) -> None:
        self._forget(recording)
        self._task(self._discard(recording))

    async def _discard(self, recording: Recording) -> None:
        try:
            await on_thread(recording.spool.remove)
        except OSError as error:
            log.warning("left behind until the next start", error=str(error))

    def _forget(self, recording: Recording) -> None:
        del self._recordings[recording.take.generation_id]
        expiry = self._expiries.pop(recording.take.generation_id, None)
        if expiry is not None:
            expiry.cancel()

    async def _look(self, generation_id: str, level: Level) -> LiveAudio | FinalAudio | None:
        recording = self._recordings.get(generation_id)
        if (
            recording is not None
            and recording.opened
            and recording.broke_off is None
            and (level is Level.LIVE or (level is Level.ANY and not recording.landed))
        ):
            return LiveAudio(recording)
        with disk_errors("looking into the library"):
            path = await on_thread(self._find, generation_id)
        if path is None:
            return None
        if level is Level.LIVE:
            raise NotFound("live audio", generation_id, "it is no longer kept; listen to the file, level FINAL")
        return await FinalAudio.open(generation_id, path)

    def _announce(self, generation_id: str) -> None:
        for arrival in self._arrivals.get(generation_id, ()):
            arrival.set()

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _no_file(generation_id: str) -> NotFound:
    return NotFound("file", generation_id, "it was not exported, or it was deleted")


def _no_audio(generation_id: str, hint: str) -> NotFound:
    return NotFound("audio", generation_id, hint)
