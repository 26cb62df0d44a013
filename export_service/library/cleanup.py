"""Making room: which files go by a policy, oldest first, and taking them away unless somebody uses them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Protocol

from dgx_music.errors import FailedPrecondition, NotFound
from export_service.library.file_locks import Usage
from export_service.library.filesystem import disk_errors
from export_service.library.inventory import Inventory, Kind, LibraryFile, file_at
from export_service.library.store import Library
from export_service.threads import on_thread


class Reason(Enum):
    """Why a file goes."""

    AGE = "age"
    SIZE = "size"
    """The files newer than it fill the bound."""
    ORPHAN = "orphan"
    """A render whose generation has no file."""


@dataclass(frozen=True)
class Policy:
    """What goes; each that is set by itself."""

    kinds: Collection[Kind] = ()
    """All for none."""
    older_than: timedelta | None = None
    keep_newest_bytes: int | None = None
    orphans: bool = False


@dataclass(frozen=True)
class Cleaned:
    """What became of a file that the policy hits."""

    file: LibraryFile
    reason: Reason
    kept_because: str = ""
    """Empty where it was deleted, or would be."""


class LibraryKeeper(Protocol):
    """Knows the library's files, and those that are being written or read."""

    usage: Usage
    inventory: Inventory
    library: Library

    def require_made(self, generation_id: str) -> None:
        """Raises FailedPrecondition while an export writes this generation's file."""

    async def delete(self, generation_id: str, render_id: str) -> None:
        """Deletes a render, or with no `render_id` the file and all that belongs to it. Raises NotFound."""

    def remove_empty_folders(self) -> None:
        """Removes the folders that no file is left in; on a thread."""


class Cleanup:
    """Takes files out of the library. Lives on the event loop."""

    def __init__(self, exporter: LibraryKeeper) -> None:
        self._exporter, self._usage = exporter, exporter.usage

    async def run(self, policy: Policy, *, dry_run: bool) -> AsyncGenerator[Cleaned, None]:
        """What goes, file by file, and then the folders that are empty; with `dry_run` what would, and nothing does."""
        with disk_errors("looking through the library"):
            chosen = await on_thread(self._choose, policy)
        for file, reason in chosen:
            kept_because = ""
            try:
                if dry_run:
                    with self._usage.taking_away(file.generation_id, file.render_id):
                        self._exporter.require_made(file.generation_id)
                elif await on_thread(file_at, file.kind, file.path) != file:
                    continue  # Gone, made anew, or used just now.
                else:
                    await self.delete(file.generation_id, file.render_id, only_if_unused=True)
            except NotFound:
                continue
            except FailedPrecondition as error:
                kept_because = error.message
            yield Cleaned(file, reason, kept_because)
        if not dry_run:
            with disk_errors("removing empty folders"):
                await on_thread(self._exporter.remove_empty_folders)

    async def delete(self, generation_id: str, render_id: str, *, only_if_unused: bool) -> None:
        """Deletes a render; without its id the generation's file, renders and whatever is kept of its making, or the
        clip.

        Raises NotFound where there is nothing, FailedPrecondition while it is being made, and with `only_if_unused`
        while it is being read; otherwise those who read it read on.
        """
        if not only_if_unused:
            await self._exporter.delete(generation_id, render_id)
            return
        with self._usage.taking_away(generation_id, render_id):
            await self._exporter.delete(generation_id, render_id)

    def _choose(self, policy: Policy) -> list[tuple[LibraryFile, Reason]]:
        """On a thread."""
        files = list(self._exporter.inventory.files(policy.kinds))
        has_file = self._exporter.library.find
        orphans = [file for file in files if file.kind is Kind.RENDER and has_file(file.generation_id) is None]
        return list(choose(files, policy, orphans, datetime.now(UTC)))


def choose(
    files: Iterable[LibraryFile], policy: Policy, orphans: Collection[LibraryFile], now: datetime
) -> Iterator[tuple[LibraryFile, Reason]]:
    """The files that go, the oldest first."""
    orphaned = {file.path for file in orphans} if policy.orphans else set()
    kept_bytes, is_full, going = 0, False, []
    for file in sorted(files, key=lambda file: file.modified_at, reverse=True):
        if file.path in orphaned:
            going.append((file, Reason.ORPHAN))
        elif policy.older_than is not None and now - file.modified_at > policy.older_than:
            going.append((file, Reason.AGE))
        elif policy.keep_newest_bytes is not None:
            kept_bytes += file.size_bytes
            # What is older than the first that does not fit goes too, however small.
            is_full = is_full or kept_bytes > policy.keep_newest_bytes
            if is_full:
                going.append((file, Reason.SIZE))
    yield from reversed(going)
