"""Tells waiting calls of this process that something changed, so that they need not ask the database.

A change says which generation it was, not what became of it: whoever waits reads the row when it gets there, and so a
slow watcher sees several changes as one and holds no memory for those it missed. What other processes change comes by
way of `broadcast.py`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from storage_service.events.changes import Change


class Notifier:
    """Hands changes to those who wait. Belongs to one event loop."""

    def __init__(self) -> None:
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._claimers: dict[asyncio.Event, frozenset[str]] = {}
        self._sweep_at = float("inf")
        self._sweep_earlier = asyncio.Event()
        self.closed = False

    @contextmanager
    def watching(self, generation_id: str) -> Iterator[asyncio.Event]:
        """An event that every change of the generation sets, while the block runs."""
        event = asyncio.Event()
        self._watchers[generation_id].add(event)
        try:
            yield event
        finally:
            self._watchers[generation_id].discard(event)
            if not self._watchers[generation_id]:
                del self._watchers[generation_id]

    @contextmanager
    def claiming(self, model_names: Iterable[str]) -> Iterator[asyncio.Event]:
        """An event that is set when there may be work for one of the models, while the block runs."""
        event = asyncio.Event()
        self._claimers[event] = frozenset(model_names)
        try:
            yield event
        finally:
            del self._claimers[event]

    def publish(self, changes: Iterable[Change]) -> None:
        """Wakes whoever waits for one of the changes."""
        loop_time = asyncio.get_running_loop().time()
        for change in changes:
            for event in self._watchers.get(change.generation_id, ()):
                event.set()
            if change.claimable:
                self.wake_claimers([change.model_name])
            if change.due_seconds is not None and loop_time + change.due_seconds < self._sweep_at:
                self._sweep_earlier.set()

    def wake_claimers(self, model_names: Iterable[str]) -> None:
        """Lets who waits for work of one of the models look for it."""
        names = frozenset(model_names)
        for event, accepted in self._claimers.items():
            if accepted & names:
                event.set()

    def wake_all(self) -> None:
        """Lets everybody look, where changes may have been missed."""
        for events in self._watchers.values():
            for event in events:
                event.set()
        for event in self._claimers:
            event.set()
        self._sweep_earlier.set()

    async def until_sweep(self, seconds: float) -> None:
        """Returns after so many seconds, or as soon as something is due earlier."""
        self._sweep_at = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout(seconds):  # Python 3.11's wait_for may swallow a cancellation.
                await self._sweep_earlier.wait()
        except TimeoutError:
            pass
        finally:
            self._sweep_earlier.clear()
            self._sweep_at = float("inf")  # What comes before the next wait counts, whenever it is due.

    def close(self) -> None:
        """Ends all waiting: `closed` is true from here on."""
        self.closed = True
        self.wake_all()
