"""Wakes the calls of this process that wait for a change, so that they need not poll the database.

A change says which generation changed but not how: the call that wakes up reads the row. So a slow watcher sees several
changes as one, and no memory is held for those that it missed. Changes by other processes arrive through
`postgres_listener`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from dgx_music.errors import ServiceError
from storage_service.events.changes import Change


class ChangeEvent(asyncio.Event):
    """Set when a generation may have changed."""

    error: ServiceError | None = None
    """Why it can't change any more."""


class WorkEvent(asyncio.Event):
    """Set when one of the models may have work to claim."""

    def __init__(self, model_names: Iterable[str]) -> None:
        super().__init__()
        self.model_names = frozenset(model_names)
        self.woken_for: set[str] = set()
        """The models of changes for which no other event was set."""

    def take(self) -> set[str]:
        """Clears the event and returns `woken_for`. Who can't look for that work adds it again."""
        self.clear()
        taken, self.woken_for = self.woken_for, set()
        return taken


class Notifier:
    """Passes changes on to the calls that wait for them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._watchers: defaultdict[str, set[ChangeEvent]] = defaultdict(set)
        self._claimers: dict[WorkEvent, None] = {}  # Those that wait longest first.
        self._next_sweep_at = float("inf")
        self._sweep_earlier = asyncio.Event()
        self.is_closed = False

    @contextmanager
    def subscribe_to_changes(self, generation_id: str) -> Iterator[ChangeEvent]:
        """Yields an event that every change of the generation sets while the block runs."""
        event = ChangeEvent()
        self._watchers[generation_id].add(event)
        try:
            yield event
        finally:
            self._watchers[generation_id].discard(event)
            if not self._watchers[generation_id]:
                del self._watchers[generation_id]

    @contextmanager
    def subscribe_to_work(self, model_names: Iterable[str]) -> Iterator[WorkEvent]:
        """Yields an event that is set, while the block runs, when one of the models may have work to claim."""
        event = WorkEvent(model_names)
        self._claimers[event] = None
        try:
            yield event
        finally:
            del self._claimers[event]
            # Woken, but it has claimed something else, or its caller has gone: the work is another's.
            for model_name in event.woken_for:
                self._wake_claimer(model_name)

    def publish(self, changes: Iterable[Change]) -> None:
        """Wakes the calls that wait for one of the changes."""
        loop_time = asyncio.get_running_loop().time()
        for change in changes:
            for event in self._watchers.get(change.generation_id, ()):
                event.set()
            if change.is_claimable:
                self._wake_claimer(change.model_name)
            if change.due_seconds is not None and loop_time + change.due_seconds < self._next_sweep_at:
                self._sweep_earlier.set()

    def fail_watchers(self, error: ServiceError) -> None:
        """Wakes all calls that wait for changes with the error for which there will be none."""
        for events in self._watchers.values():
            for event in events:
                event.error = error
                event.set()

    def wake_claimers(self, model_names: Iterable[str]) -> None:
        """Wakes the calls that wait for work of one of the models."""
        names = frozenset(model_names)
        for event in self._claimers:
            if event.model_names & names:
                event.set()

    def _wake_claimer(self, model_name: str) -> None:
        """Wakes one of the calls that wait for work of the model: if all were, all but one would claim in vain."""
        for event in self._claimers:
            if model_name in event.model_names and not event.is_set():
                event.woken_for.add(model_name)
                event.set()
                return

    def wake_all(self) -> None:
        """Wakes all waiting calls, because changes may have been missed."""
        for events in self._watchers.values():
            for event in events:
                event.set()
        for maybe_work in self._claimers:
            maybe_work.set()
        self._sweep_earlier.set()

    async def wait_for_sweep(self, seconds: float) -> None:
        """Waits for so many seconds, or until something is due earlier."""
        self._next_sweep_at = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout(seconds):  # wait_for in Python 3.11 may swallow a cancellation.
                await self._sweep_earlier.wait()
        except TimeoutError:
            pass
        finally:
            self._sweep_earlier.clear()
            # Whatever is published before the next wait counts as earlier, whenever it is due.
            self._next_sweep_at = float("inf")

    def close(self) -> None:
        """Ends all waiting. `is_closed` is true from now on."""
        self.is_closed = True
        self.wake_all()
