"""Runs threads under a virtual clock: time passes only while all of them sleep. For `benchmarks.engine_simulation`.

Real code that waits on a condition and reads the time runs unchanged in it: `VirtualClock.spawn` starts it,
`VirtualCondition` replaces `threading.Condition`, and the clock replaces the module `time` of the code that reads it.
Only one thread runs at a time, so a simulation gives the same result each time.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from types import TracebackType


class _Stopped(BaseException):
    """Unwinds a thread when the simulation ends."""


class _Process:
    def __init__(self) -> None:
        self.turn = threading.Semaphore(0)
        self.wake_number = 0
        """Which of its wake-ups is valid: a notification overtakes a timeout."""


class VirtualClock:
    """A discrete-event simulation whose processes are threads."""

    def __init__(self) -> None:
        self._now = 0.0
        self._events: list[tuple[float, int, _Process, int]] = []
        self._event_count = 0
        self._main = _Process()
        self._current = self._main
        self._threads: list[threading.Thread] = []
        self._processes: list[_Process] = []
        self._is_stopping = False
        self._error: BaseException | None = None

    def monotonic(self) -> float:
        """The time in seconds, as `time.monotonic`."""
        return self._now

    perf_counter = monotonic

    def spawn(self, function: Callable[[], object]) -> None:
        """Adds a thread, which starts at the present time."""
        process = _Process()

        def run() -> None:
            process.turn.acquire()
            try:
                if not self._is_stopping:
                    function()
            except _Stopped:
                pass
            except BaseException as error:
                self._error = error
            finally:
                self._next(None)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._processes.append(process)
        self._threads[-1].start()
        self._schedule(process, self._now)

    def run(self) -> None:
        """Runs until no thread has anything to wait for but the others, then ends all. Raises what a thread raised."""
        self._next(self._main)
        self._is_stopping = True
        for process, thread in zip(self._processes, self._threads, strict=True):
            process.turn.release()
            thread.join()
        if self._error is not None:
            raise self._error

    def sleep(self, seconds: float) -> None:
        """Lets time pass for the current thread, as `time.sleep`."""
        if seconds < 0:
            raise ValueError(f"can't sleep for {seconds} s")
        wake_at = self._now + seconds
        if not self._events or wake_at < self._events[0][0]:  # The usual case, without a switch of threads.
            self._require_running()
            self._now = wake_at
            return
        self._schedule(self._current, wake_at)
        self._next(self._current)

    def block(self, timeout: float | None, register: Callable[[_Process], object]) -> None:
        """Blocks the current thread until `wake` or the timeout."""
        process = self._current
        if timeout is not None:
            self._schedule(process, self._now + timeout)
        register(process)
        self._next(process)

    def wake(self, process: _Process) -> None:
        """Lets a blocked thread go on at the present time."""
        self._schedule(process, self._now)

    def _schedule(self, process: _Process, at: float) -> None:
        self._event_count += 1
        heapq.heappush(self._events, (at, self._event_count, process, process.wake_number))

    def _next(self, current: _Process | None) -> None:
        """Passes the turn to the thread that is due first, or to `run` if there is none or one has failed."""
        if self._is_stopping:
            if current is not None:
                raise _Stopped
            return
        following = self._main
        while self._events and self._error is None:
            at, _, process, wake_number = heapq.heappop(self._events)
            if process.wake_number == wake_number:
                self._now, following = at, process
                break
        following.wake_number += 1
        self._current = following
        if following is not current:
            following.turn.release()
            if current is not None:
                current.turn.acquire()
                if current is not self._main:
                    self._require_running()

    def _require_running(self) -> None:
        if self._is_stopping:
            raise _Stopped


class VirtualCondition:
    """`threading.Condition` under a virtual clock. The lock is free, as only one thread runs at a time."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._waiting: list[_Process] = []

    def __enter__(self) -> bool:
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def wait(self, timeout: float | None = None) -> bool:
        waiter: list[_Process] = []

        def register(process: _Process) -> None:
            waiter.append(process)
            self._waiting.append(process)

        self._clock.block(timeout, register)
        if waiter[0] in self._waiting:
            self._waiting.remove(waiter[0])
            return False
        return True

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        end = None if timeout is None else self._clock.monotonic() + timeout
        while not (result := predicate()):
            remaining = None if end is None else end - self._clock.monotonic()
            if remaining is not None and remaining <= 0:
                break
            self.wait(remaining)
        return result

    def notify(self, n: int = 1) -> None:
        woken, self._waiting = self._waiting[:n], self._waiting[n:]
        for process in woken:
            self._clock.wake(process)

    def notify_all(self) -> None:
        self.notify(len(self._waiting))
