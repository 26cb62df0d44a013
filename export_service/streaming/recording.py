"""One attempt at a generation, as those who listen see it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dgx_music.errors import Aborted, ServiceError
from export_service.streaming.spool import Spool


@dataclass(frozen=True)
class Take:
    """Which attempt at which generation, and the format of its samples."""

    generation_id: str
    attempt: int
    sample_rate_hz: int
    channels: int
    expected_frames: int
    """0 where it is not known beforehand."""


class Recording:
    """Samples on their way into a spool. Lives on the event loop."""

    def __init__(self, take: Take, spool: Spool) -> None:
        self.take = take
        self.spool = spool
        self.frames = 0
        """In the spool so far."""
        self.opened = False
        """The spool is there to be read."""
        self.whole = False
        """All samples have arrived and add up."""
        self.landed = False
        """The file made of them is in the library."""
        self.broke_off: ServiceError | None = None
        """Why the making of it ended early."""
        self.closed = asyncio.Event()
        """Nobody works on it any more, and if it broke off, nothing is left of it."""
        self._changed = asyncio.Event()

    @classmethod
    def landed_before(cls, take: Take, spool: Spool) -> Recording:
        """One that an earlier process finished; `take.expected_frames` are in its spool."""
        recording = cls(take, spool)
        recording.frames = take.expected_frames
        recording.opened = recording.whole = recording.landed = True
        recording.closed.set()
        return recording

    @property
    def in_progress(self) -> bool:
        """Whether it is still on its way to the library."""
        return not self.landed and self.broke_off is None

    @property
    def expected_frames(self) -> int:
        """Frames that it will have; 0 where that is not known yet."""
        return self.frames if self.whole else self.take.expected_frames

    def grow(self, frames: int) -> None:
        """So many more frames are in the spool."""
        self.frames += frames
        self._notify()

    def complete(self) -> None:
        """All samples are in the spool."""
        self.whole = True
        self._notify()

    def break_off(self, error: ServiceError) -> None:
        """The making ends here, unless the file has landed or it broke off before."""
        if self.in_progress:
            self.broke_off = error
            self._notify()

    def require_unbroken(self) -> None:
        """Raises what broke it off. For any thread."""
        if self.broke_off is not None:
            raise self.broke_off

    async def changed(self) -> None:
        """Returns at the next change. Nothing may be awaited between the look at the state and this call."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def superseded(take: Take, by_attempt: int) -> Aborted:
    """What the maker of an attempt gets that somebody else went past."""
    return Aborted(
        f"attempt {take.attempt} at generation {take.generation_id} is void: attempt {by_attempt} has been seen",
        reason="ATTEMPT_SUPERSEDED",
        metadata={"attempt": str(take.attempt), "newest_attempt": str(by_attempt)},
    )
