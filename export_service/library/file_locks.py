"""Who reads which file now, so that no cleaning up takes it away from them. Lives on the event loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from dgx_music.errors import FailedPrecondition, NotFound


class Usage:
    """Files by generation (or clip) and render; without a render, the file itself and what is kept of its making."""

    def __init__(self) -> None:
        self._readers: dict[str, Counter[str]] = {}
        self._going: set[tuple[str, str]] = set()

    @contextmanager
    def reading(self, generation_id: str, render_id: str = "") -> Iterator[None]:
        """The file is not taken away while the block runs. Raises NotFound where that has begun."""
        if {(generation_id, ""), (generation_id, render_id)} & self._going:
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
    def taking_away(self, generation_id: str, render_id: str = "") -> Iterator[None]:
        """Nobody begins to read while the block runs. Raises FailedPrecondition where somebody does already: the
        render, or for the file itself that or any render of it.
        """
        readers = self._readers.get(generation_id, Counter())
        if readers[render_id] if render_id else readers:
            raise FailedPrecondition(
                f"the file of {generation_id} is being read; try again later", reason="FILE_IN_USE"
            )
        self._going.add((generation_id, render_id))
        try:
            yield
        finally:
            self._going.discard((generation_id, render_id))
