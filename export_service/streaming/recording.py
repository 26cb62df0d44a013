"""The state of one export attempt, as its listeners see it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from dgx_music.errors import Aborted, NotFound, ServiceError
from export_service.streaming.spool import ReceivedAudio, Spool


@dataclass(frozen=True)
class AttemptSpec:
    """Identifies one attempt of a generation, and describes its samples."""

    generation_id: str
    attempt: int
    sample_rate_hz: int
    channels: int
    expected_frames: int
    """0 if the length is not known in advance."""


class Recording:
    """One attempt's samples, on their way into a spool and from there into a file. Used on the event loop only."""

    def __init__(self, spec: AttemptSpec, spool: Spool) -> None:
        self.spec = spec
        self.spool = spool
        self.frames = 0
        """Frames in the spool so far."""
        self.is_readable = False
        """The spool exists, so listeners can open it."""
        self.is_fully_received = False
        """All samples have arrived, in the expected number."""
        self.received: ReceivedAudio | None = None
        """Samples that are kept in the spool even if the attempt fails: all, or those of a suspended attempt."""
        self.is_suspended = False
        """The attempt was handed back. The next one goes on with these samples; listeners wait for it."""
        self.is_completed = False
        """The mastered file is in the library."""
        self.abort_error: ServiceError | None = None
        """Why the attempt ended before it was completed."""
        self.closed = asyncio.Event()
        """Set when the attempt has ended and its files have been removed, except those that are kept."""
        self._changed = asyncio.Event()

    @classmethod
    def restore_completed(cls, spec: AttemptSpec, spool: Spool) -> Recording:
        """Returns the recording that an earlier process completed, with `spec.expected_frames` in its spool."""
        recording = cls(spec, spool)
        recording.frames = spec.expected_frames
        recording.is_readable = recording.is_fully_received = recording.is_completed = True
        recording.closed.set()
        return recording

    @classmethod
    def restore_failed(cls, spec: AttemptSpec, spool: Spool, received: ReceivedAudio) -> Recording:
        """Returns the recording of an attempt that an earlier process received completely, but did not complete."""
        recording = cls(spec, spool)
        recording.frames, recording.received, recording.is_fully_received = received.frames, received, True
        recording.abort(broke_off_error(spec))
        recording.closed.set()
        return recording

    @classmethod
    def restore_suspended(cls, spec: AttemptSpec, spool: Spool, received: ReceivedAudio) -> Recording:
        """Returns the recording of a suspended attempt, with the samples that it has received."""
        recording = cls(spec, spool)
        recording.frames, recording.received = received.frames, received
        recording.is_readable = recording.is_suspended = True
        recording.closed.set()
        return recording

    @classmethod
    def resume(cls, previous: Recording, attempt: int) -> Recording:
        """Returns the recording of a newer attempt that takes over the spool of `previous`, which must have one."""
        recording = cls(replace(previous.spec, attempt=attempt), previous.spool)
        recording.frames, recording.received = previous.frames, previous.received
        recording.is_readable = recording.is_fully_received = True
        return recording

    def continue_as(self, spec: AttemptSpec) -> Recording:
        """Returns the recording of an attempt that appends to the samples of this suspended one: this one, so that its
        listeners notice nothing, unless it was aborted."""
        assert self.received is not None
        recording = self
        if self.abort_error is not None:
            recording = Recording.restore_suspended(spec, self.spool, self.received)
        recording.spec, recording.is_suspended = spec, False
        recording.closed = asyncio.Event()
        return recording

    @property
    def has_spool(self) -> bool:
        """Whether the spool is kept after the attempt has ended."""
        return self.is_completed or self.received is not None

    @property
    def is_in_progress(self) -> bool:
        """Whether the attempt has neither been completed nor aborted."""
        return not self.is_completed and self.abort_error is None

    @property
    def expected_frames(self) -> int:
        """The total number of frames; 0 while it is unknown."""
        return self.frames if self.is_fully_received else self.spec.expected_frames

    def add_frames(self, frames: int) -> None:
        """Records that this many more frames are in the spool."""
        self.frames += frames
        self._notify()

    def mark_fully_received(self) -> None:
        """Records that all samples are in the spool."""
        self.is_fully_received = True
        self._notify()

    def abort(self, error: ServiceError) -> None:
        """Aborts the attempt, unless it has already been completed or aborted."""
        if self.is_in_progress:
            self.abort_error = error
            self._notify()

    def raise_if_aborted(self) -> None:
        """Raises the error with which the attempt was aborted. May be called from any thread."""
        if self.abort_error is not None:
            raise self.abort_error

    async def wait_for_change(self) -> None:
        """Returns at the next change. Call it right after reading the state, without awaiting anything in between."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def superseded_error(spec: AttemptSpec, newer_attempt: int) -> Aborted:
    """Returns the error that the sender of an attempt gets when there is a newer one."""
    return Aborted(
        f"attempt {spec.attempt} of generation {spec.generation_id} was superseded by attempt {newer_attempt}",
        reason="ATTEMPT_SUPERSEDED",
        metadata={"attempt": str(spec.attempt), "newest_attempt": str(newer_attempt)},
    )


def broke_off_error(spec: AttemptSpec) -> Aborted:
    """Returns the error of an attempt that ended without a file."""
    return Aborted(f"attempt {spec.attempt} of generation {spec.generation_id} was aborted", reason="ATTEMPT_BROKE_OFF")


def received_audio_not_found(generation_id: str, why: str) -> NotFound:
    """Returns the error of an export that can't be resumed."""
    return NotFound("received audio", generation_id, f"{why}; generate it again")
