"""Keeps track of the recordings: those of running attempts, and those whose spool is kept after the attempt has ended.

Of several attempts of a generation, the newest one wins.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dgx_music.errors import Aborted, ServiceError
from export_service.formats.m4a_file import DamagedFileError
from export_service.library.audio_library import AudioLibrary
from export_service.library.filesystem import translate_disk_errors
from export_service.library.store import read_audio_properties
from export_service.streaming.recording import (
    AttemptSpec,
    Recording,
    broke_off_error,
    received_audio_not_found,
    superseded_error,
)
from export_service.streaming.spool import BYTES_PER_SAMPLE, SpoolFolder, StoredSpool
from export_service.threads import run_in_thread
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class SpoolRetention:
    """How long spools are kept after the attempt has ended."""

    completed_seconds: float
    """If the mastered file is in the library: for listeners to live audio."""
    failed_seconds: float
    """If the export failed after all samples had arrived: for the attempt that resumes it."""


class RecordingRegistry:
    """Used on the event loop only."""

    def __init__(self, library: AudioLibrary, spools: SpoolFolder, retention: SpoolRetention) -> None:
        self._library, self._spools, self._retention = library, spools, retention
        self._recordings: dict[str, Recording] = {}
        self._expiry_timers: dict[str, asyncio.TimerHandle] = {}
        self._removals: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Removes what earlier processes left incomplete, and restores the spools they kept."""
        for recording, age_seconds in await run_in_thread(self._restore):
            self._recordings[recording.spec.generation_id] = recording
            self._schedule_expiry(recording, age_seconds)

    async def stop(self) -> None:
        """Waits for the removal of expired spools."""
        for timer in self._expiry_timers.values():
            timer.cancel()
        await asyncio.gather(*self._removals)

    def get(self, generation_id: str) -> Recording | None:
        """Returns the recording of the newest attempt, unless nothing of it is kept."""
        return self._recordings.get(generation_id)

    async def register(self, attempt: AttemptSpec) -> tuple[Recording, Recording | None]:
        """Returns the recording of a new attempt, and the ended one whose spool the caller has to remove, if any.

        Aborts an older attempt in progress. Raises Aborted if there is a newer attempt, or if this one is already in
        progress.
        """
        await self._check_stored_attempt(attempt)
        while (previous := self._find_not_newer(attempt)) is not None:
            if attempt.attempt > previous.spec.attempt:
                previous.abort(superseded_error(previous.spec, attempt.attempt))
                break
            if previous.closed.is_set():
                break
            await previous.closed.wait()  # The same attempt again: its files have the same names.
        if previous is not None:
            self._forget(previous)
        recording = Recording(attempt, self._spools.spool(attempt.generation_id, attempt.attempt))
        self._recordings[attempt.generation_id] = recording
        return recording, previous if previous is not None and previous.closed.is_set() else None

    async def find_received(self, generation_id: str, attempt: int) -> Recording:
        """Returns the recording of an earlier attempt, with all samples or those of a suspended one; aborts it first if
        it is still in progress.

        Raises NotFound if there is none, and the same errors as `register`.
        """
        requested = AttemptSpec(generation_id, attempt, sample_rate_hz=0, channels=0, expected_frames=0)
        await self._check_stored_attempt(requested)
        while (previous := self._find_not_newer(requested)) is not None and not previous.closed.is_set():
            previous.abort(superseded_error(previous.spec, attempt))
            await previous.closed.wait()
        if previous is None or previous.received is None:
            raise received_audio_not_found(generation_id, "no attempt was received completely, or it is no longer kept")
        return previous

    async def continue_suspended(self, attempt: AttemptSpec, frames: int) -> Recording:
        """Returns the recording of a new attempt, which appends to the `frames` of a suspended one.

        Raises NotFound if there are not just these, and the same errors as `register`.
        """
        previous = await self.find_received(attempt.generation_id, attempt.attempt)
        received = previous.received
        assert received is not None
        found = received.frames, received.sample_rate_hz, received.channels, received.is_complete
        if found != (frames, attempt.sample_rate_hz, attempt.channels, False):
            raise received_audio_not_found(attempt.generation_id, "the samples kept are others")
        self._forget(previous)
        recording = self._recordings[attempt.generation_id] = previous.continue_as(attempt)
        return recording

    def resume(self, previous: Recording, attempt: int) -> Recording:
        """Returns the recording of a new attempt, which takes over the samples that `find_received` has returned."""
        self._forget(previous)
        recording = self._recordings[previous.spec.generation_id] = Recording.resume(previous, attempt)
        return recording

    async def close(self, recording: Recording) -> None:
        """Keeps or removes the spool of an attempt that has ended."""
        is_current = self._recordings.get(recording.spec.generation_id) is recording
        if is_current and recording.has_spool:
            self._schedule_expiry(recording)
            if not recording.is_completed:
                log.warning("received_audio_kept", frames=recording.frames, seconds=self._retention.failed_seconds)
        elif is_current:
            self._forget(recording)
        elif recording.has_spool:
            await self.remove_spool(recording)
        recording.closed.set()

    async def discard(self, generation_id: str) -> bool:
        """Removes the spool of an attempt that has ended or is ending. Returns whether there was one.

        Raises OSError.
        """
        ending = self._recordings.get(generation_id)
        if ending is not None and not ending.is_in_progress:
            await ending.closed.wait()
        recording = self._recordings.get(generation_id)
        if recording is None or not recording.closed.is_set():
            return False
        self._end_suspended(recording)
        self._forget(recording)
        await run_in_thread(recording.spool.remove)
        return True

    async def remove_spool(self, recording: Recording) -> None:
        """Removes the spool of an attempt that has ended."""
        try:
            await run_in_thread(recording.spool.remove)
        except OSError as error:
            # The next start of the service removes it.
            log.warning("cleanup_failed", generation_id=recording.spec.generation_id, error=str(error))

    async def _check_stored_attempt(self, attempt: AttemptSpec) -> None:
        """Raises Aborted if the library has the file of a newer attempt."""
        with translate_disk_errors("searching the library"):
            stored_attempt = await run_in_thread(self._library.find_attempt, attempt.generation_id)
        if attempt.attempt < stored_attempt:
            raise superseded_error(attempt, stored_attempt)

    def _find_not_newer(self, attempt: AttemptSpec) -> Recording | None:
        """Returns the previous recording. Raises Aborted if it is newer, or the same and still in progress."""
        previous = self._recordings.get(attempt.generation_id)
        if previous is not None and attempt.attempt < previous.spec.attempt:
            raise superseded_error(attempt, previous.spec.attempt)
        if previous is not None and attempt.attempt == previous.spec.attempt and previous.is_in_progress:
            raise Aborted(
                f"attempt {attempt.attempt} of generation {attempt.generation_id} is already being exported",
                reason="ATTEMPT_IN_PROGRESS",
            )
        return previous

    def _schedule_expiry(self, recording: Recording, age_seconds: float = 0.0) -> None:
        """Has the spool removed when it has been kept for long enough."""
        keep = self._retention.completed_seconds if recording.is_completed else self._retention.failed_seconds
        timer = asyncio.get_running_loop().call_later(keep - age_seconds, self._expire, recording)
        self._expiry_timers[recording.spec.generation_id] = timer

    def release_listeners(self) -> None:
        """Ends the calls of all listeners who wait for the next attempt: it will not come before the service stops."""
        for recording in self._recordings.values():
            self._end_suspended(recording)

    @staticmethod
    def _end_suspended(recording: Recording) -> None:
        """Ends the calls of the listeners who wait for the next attempt."""
        if recording.is_suspended:
            recording.abort(broke_off_error(recording.spec))

    def _expire(self, recording: Recording) -> None:
        self._end_suspended(recording)
        self._forget(recording)
        task = asyncio.create_task(self.remove_spool(recording))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    def _forget(self, recording: Recording) -> None:
        del self._recordings[recording.spec.generation_id]
        timer = self._expiry_timers.pop(recording.spec.generation_id, None)
        if timer is not None:
            timer.cancel()

    # The methods below run in a thread.

    def _restore(self) -> list[tuple[Recording, float]]:
        """Returns the recordings whose spools are kept, and their age in seconds. Raises OSError."""
        self._spools.open()
        newest: dict[str, tuple[Recording, float]] = {}
        for stored in sorted(self._spools.iter_stored(), key=lambda stored: stored.attempt, reverse=True):
            try:
                recording = None if stored.generation_id in newest else self._restore_recording(stored)
                if recording is None:
                    self._spools.spool(stored.generation_id, stored.attempt).remove()
                else:
                    newest[stored.generation_id] = recording, stored.age_seconds
            except (OSError, DamagedFileError, ServiceError) as error:
                # One file that can't be read must not keep the service from starting. A later start tries again.
                log.warning("spool_not_restored", generation_id=stored.generation_id, error=str(error))
        return list(newest.values())

    def _restore_recording(self, stored: StoredSpool) -> Recording | None:
        """Returns the recording of a stored spool, or None if it need not be kept."""
        spool = self._spools.spool(stored.generation_id, stored.attempt)
        received = stored.received
        is_failed = received is not None and not stored.is_finished
        if is_failed and self._library.find_attempt(stored.generation_id) < stored.attempt:
            assert received is not None
            spec = AttemptSpec(
                stored.generation_id,
                stored.attempt,
                received.sample_rate_hz,
                received.channels,
                received.frames if received.is_complete else 0,
            )
            if stored.age_seconds > self._retention.failed_seconds:
                return None
            restore = Recording.restore_failed if received.is_complete else Recording.restore_suspended
            return restore(spec, spool, received)
        path = self._library.find(stored.generation_id)
        if path is None or stored.age_seconds > self._retention.completed_seconds:
            return None
        audio = received or read_audio_properties(path)
        if is_failed:  # The process ended right after the file had been added to the library.
            file = read_audio_properties(path)
            is_converted = (file.sample_rate_hz, file.channels) != (audio.sample_rate_hz, audio.channels)
            spool.finish(keep_description=is_converted)
        frames = stored.size_bytes // (audio.channels * BYTES_PER_SAMPLE)
        spec = AttemptSpec(stored.generation_id, stored.attempt, audio.sample_rate_hz, audio.channels, frames)
        return Recording.restore_completed(spec, spool)
