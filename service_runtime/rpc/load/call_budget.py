"""How many calls of one kind a service may serve at once, and the queue of those that wait for their turn."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from dgx_music.errors import ResourceExhausted, Unavailable

MAX_WAIT_SECONDS = 1.0
"""How long a call may be expected to wait for its turn."""
CLIENT_SHARE = 0.5
"""Of the queue, for one client: its burst leaves room for the calls of others."""
OTHERS_SHARE = 8
"""Of the places where nobody waits, one in so many is left to others by any one client."""
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 60.0
INITIAL_CALL_SECONDS = 0.02
"""How long a call is expected to take before any has been measured."""
AVERAGING_WEIGHT = 0.05
"""Of each call in the average duration."""


class Budget:
    """How many calls of one kind a service may serve at once, and the queue of those that wait for their turn.

    Clients take turns in the queue; a client's calls are served in the order in which they came.

    Callers who are refused are told to come back one after another, as fast as calls are served. Had they all the same
    wait, they would come together again, and refusing them would take more time than serving others.
    """

    def __init__(
        self, service: str, kind: str, limit: int, max_waiting: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.service, self.kind, self.limit, self.max_waiting = service, kind, limit, max_waiting
        self._clock = clock
        self._active = 0
        self._held: Counter[str] = Counter()
        """Client → the places that it has."""
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        """Client → its waiting calls, of which there is at least one. The first client is the next."""
        self._waiting = 0
        """Length of all queues. Nobody waits while a place is free."""
        self._freed_at = 0.0
        """When a place was last freed, or taken while others were free."""
        self._is_closed = False
        self._call_seconds = INITIAL_CALL_SECONDS
        """Average duration of a call."""
        self._last_retry_at = 0.0
        """When the last caller who was refused should come back."""

    def check(self) -> None:
        """Raises ResourceExhausted if no more calls fit, whoever makes them."""
        if self._active >= self.limit and (
            self._waiting >= self.max_waiting or self._expected_wait(self._waiting) > MAX_WAIT_SECONDS / CLIENT_SHARE
        ):
            raise self._refusal()

    @asynccontextmanager
    async def occupy(self, client: str = "", seconds_left: float | None = None) -> AsyncIterator[None]:
        """Waits for a place, and has it while the block runs.

        Raises ResourceExhausted if the call does not fit, or would wait for longer than the `seconds_left` to it, and
        Unavailable if the server shuts down before its turn.
        """
        if not self.max_waiting and self._held[client] >= self.limit - self.limit // OTHERS_SHARE:
            raise self._refusal(f"one client may have {self._held[client]} {self.kind} at a time")
        if self._active < self.limit:
            self._active += 1
            self._freed_at = self._clock()
        else:
            await self._wait(client, seconds_left)
        started_at = self._clock()
        self._held[client] += 1
        try:
            yield
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
            self._call_seconds += AVERAGING_WEIGHT * (self._clock() - started_at - self._call_seconds)
            self._free()

    def close(self) -> None:
        """Ends all calls that wait, and from now on those that would have to."""
        self._is_closed = True
        queues, self._queues, self._waiting = self._queues, {}, 0
        for queue in queues.values():
            for turn in queue:
                if not turn.done():
                    turn.set_exception(shutting_down())

    def is_working(self) -> bool:
        """Whether calls are at work that end soon."""
        return self._active > 0 and self.kind == "calls"

    async def _wait(self, client: str, seconds_left: float | None) -> None:
        """Returns when the call has got the place of one that has ended."""
        if self._is_closed:
            raise shutting_down()
        own = len(self._queues.get(client, ()))
        in_turn = (own + 1) * (len(self._queues) + (own == 0))
        wait_seconds = self._expected_wait(min(in_turn, self._waiting + 1))
        is_late = wait_seconds > MAX_WAIT_SECONDS or (seconds_left is not None and wait_seconds > seconds_left)
        if is_late or own >= self.max_waiting * CLIENT_SHARE or self._waiting >= self.max_waiting:
            raise self._refusal()
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(turn)
        self._waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                if turn.exception() is None:  # Its turn had come.
                    self._free()
            elif turn in self._queues.get(client, ()):
                self._queues[client].remove(turn)
                self._waiting -= 1
                if not self._queues[client]:
                    del self._queues[client]
            raise

    def _free(self) -> None:
        """Gives the place of a call that has ended to the next one that waits."""
        self._freed_at = self._clock()
        while self._queues:
            client = next(iter(self._queues))
            queue = self._queues.pop(client)
            turn = queue.popleft()
            self._waiting -= 1
            if queue:
                self._queues[client] = queue  # At the end: the other clients come first.
            if not turn.done():
                turn.set_result(None)
                return
        self._active -= 1
        if not self._active:
            self._call_seconds = min(self._call_seconds, INITIAL_CALL_SECONDS)  # An idle server is not slow any more.

    def _expected_wait(self, place: int) -> float:
        """Returns the seconds until so many of the calls at work and before this one have ended."""
        return max(place * self._call_seconds / self.limit, self._clock() - self._freed_at)

    def _refusal(self, problem: str | None = None) -> ResourceExhausted:
        retry_seconds = self._reserve_retry()
        problem = problem or f"it serves {self.limit} {self.kind} at a time"
        return ResourceExhausted(
            f"the server is busy: {problem}; try again in {retry_seconds:g} s",
            reason="SERVER_BUSY",
            metadata={"service": self.service, "kind": self.kind, "limit": str(self.limit)},
            retry_after_seconds=retry_seconds,
        )

    def _reserve_retry(self) -> float:
        """Returns the seconds after which the next caller should come back."""
        now = self._clock()
        next_at = max(self._last_retry_at, now + MIN_RETRY_SECONDS) + self._call_seconds / self.limit
        self._last_retry_at = min(next_at, now + MAX_RETRY_SECONDS)
        return round(self._last_retry_at - now, 2)


def shutting_down() -> Unavailable:
    """Returns the error for calls that a server which shuts down does not begin."""
    return Unavailable("the server is shutting down", reason="SHUTTING_DOWN", retry_after_seconds=1.0)
