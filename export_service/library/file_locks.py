"""Locks that keep a file that is being read from being cleaned up, and one that is being rendered from being edited."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from dgx_music.errors import FailedPrecondition, NotFound


class FileLocks:
    """Read and delete locks, by generation (or clip) id and render id. Used on the event loop only.

    An empty render id stands for the generation's own file, its spool and all of its renders.
    """

    def __init__(self) -> None:
        self._readers: dict[str, Counter[str]] = {}
        self._deleting: set[tuple[str, str]] = set()
        self._rendering: Counter[str] = Counter()
        self._editing: set[str] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def render_lock(self, generation_id: str) -> AsyncIterator[None]:
        """Keeps the generation's files from being edited while the block renders one. Waits for an edit to end."""
        async with self._changed:
            await self._changed.wait_for(lambda: generation_id not in self._editing)
            self._rendering[generation_id] += 1
        try:
            yield
        finally:
            async with self._changed:
                self._rendering[generation_id] -= 1
                self._rendering += Counter()  # Removes counts of 0.
                self._changed.notify_all()

    @asynccontextmanager
    async def edit_lock(self, generation_id: str) -> AsyncIterator[None]:
        """Keeps the generation from being rendered or edited while the block edits one of its files. Waits for renders
        and another edit to end.
        """
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._rendering[generation_id] and generation_id not in self._editing
            )
            self._editing.add(generation_id)
        try:
            yield
        finally:
            async with self._changed:
                self._editing.discard(generation_id)
                self._changed.notify_all()

    @contextmanager
    def read_lock(self, generation_id: str, render_id: str = "") -> Iterator[None]:
        """Keeps the file from being deleted while the block runs. Raises NotFound if it is already being deleted."""
        if {(generation_id, ""), (generation_id, render_id)} & self._deleting:
            raise NotFound("file", render_id or generation_id, "it is being deleted")
        readers = self._readers.setdefault(generation_id, Counter())
        readers[render_id] += 1
        try:
            yield
        finally:
            readers[render_id] -= 1
            if not readers[render_id]:
                del readers[render_id]
            if not readers:
                self._readers.pop(generation_id, None)

    def is_in_use(self, generation_id: str) -> bool:
        """Returns whether one of the generation's files, or the clip, is being read, rendered or edited. May be called
        from any thread.
        """
        return generation_id in self._readers or generation_id in self._editing or self._rendering[generation_id] > 0

    @contextmanager
    def delete_lock(self, generation_id: str, render_id: str = "") -> Iterator[None]:
        """Keeps new readers out while the block runs.

        Raises FailedPrecondition if the file is being read. Deleting a generation's own file also deletes its renders,
        so a reader of any of them counts.
        """
        readers = self._readers.get(generation_id, Counter())
        if readers[render_id] if render_id else readers:
            raise FailedPrecondition(
                f"the file of {generation_id} is being read; try again later", reason="FILE_IN_USE"
            )
        self._deleting.add((generation_id, render_id))
        try:
            yield
        finally:
            self._deleting.discard((generation_id, render_id))
