"""Locks that keep a cleanup from deleting a file while it is being read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from dgx_music.errors import FailedPrecondition, NotFound


class FileLocks:
    """Read and delete locks, by generation (or clip) id and render id. Used on the event loop only.

    An empty render id stands for the generation's own file, its spool and all of its renders.
    """

    def __init__(self) -> None:
        self._readers: dict[str, Counter[str]] = {}
        self._deleting: set[tuple[str, str]] = set()

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
