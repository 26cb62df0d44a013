"""Cleanup: selects files by a policy, oldest first, and deletes those that are not in use."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Protocol

from dgx_music.errors import FailedPrecondition, NotFound
from export_service.library.audio_library import FileInventory
from export_service.library.file_locks import FileLocks
from export_service.library.filesystem import translate_disk_errors
from export_service.library.inventory import FileKind, LibraryFile
from export_service.threads import run_in_thread


class CleanupReason(Enum):
    """Why a file is selected."""

    AGE = "age"
    """It is older than the policy allows."""
    SIZE = "size"
    """Newer files use up the policy's size limit."""
    ORPHAN = "orphan"
    """It is a render of a generation that has no file."""


@dataclass(frozen=True)
class CleanupPolicy:
    """Which files to delete. A file is selected if any one of the rules that are set applies to it."""

    kinds: Collection[FileKind] = ()
    """Kinds of files to consider; all if empty."""
    older_than: timedelta | None = None
    keep_newest_bytes: int | None = None
    orphans: bool = False


@dataclass(frozen=True)
class CleanupResult:
    """What happened to a file that the policy selected."""

    file: LibraryFile
    reason: CleanupReason
    kept_because: str = ""
    """Why it was not deleted; empty if it was, or in a dry run would have been."""


class LibraryManager(Protocol):
    """What a cleanup needs of the export manager, which knows what is being written and read."""

    locks: FileLocks
    inventory: FileInventory

    def raise_if_exporting(self, generation_id: str) -> None:
        """Raises FailedPrecondition while an export writes this generation's file."""

    async def delete(self, generation_id: str, render_id: str) -> None:
        """Deletes one render, or if `render_id` is empty, the file and everything that belongs to it.

        Raises NotFound.
        """


class Cleanup:
    """Deletes files from the library. Used on the event loop only."""

    def __init__(self, manager: LibraryManager) -> None:
        self._manager = manager

    async def run(self, policy: CleanupPolicy, *, dry_run: bool) -> AsyncGenerator[CleanupResult, None]:
        """Deletes the selected files one by one, yielding each result, then removes what no longer belongs to any file.

        With `dry_run`, yields what would happen and deletes nothing.
        """
        manager = self._manager
        with translate_disk_errors("listing the library"):
            selected = await run_in_thread(self._select, policy)
        for file, reason in selected:
            kept_because = ""
            try:
                if dry_run:
                    with manager.locks.delete_lock(file.generation_id, file.render_id):
                        manager.raise_if_exporting(file.generation_id)
                elif not await run_in_thread(manager.inventory.is_current, file):
                    continue  # It was deleted, replaced or used since it was selected.
                else:
                    await self.delete(file.generation_id, file.render_id, only_if_unused=True)
            except NotFound:
                continue
            except FailedPrecondition as error:
                kept_because = error.message
            yield CleanupResult(file, reason, kept_because)
        if not dry_run:
            with translate_disk_errors("removing what is left"):
                await run_in_thread(manager.inventory.remove_remains)

    async def delete(self, generation_id: str, render_id: str, *, only_if_unused: bool) -> None:
        """Deletes one render, or if `render_id` is empty, the generation's file, renders and spool, or the clip.

        Raises NotFound if it does not exist, FailedPrecondition while it is being exported and, with `only_if_unused`,
        while it is being read. Without `only_if_unused`, current readers can read the deleted file to its end.
        """
        if not only_if_unused:
            await self._manager.delete(generation_id, render_id)
            return
        with self._manager.locks.delete_lock(generation_id, render_id):
            await self._manager.delete(generation_id, render_id)

    def _select(self, policy: CleanupPolicy) -> list[tuple[LibraryFile, CleanupReason]]:
        """Runs in a thread."""
        files = list(self._manager.inventory.iter_files(policy.kinds))
        orphans = self._manager.inventory.find_orphans(files) if policy.orphans else []
        return list(select_files(files, policy, orphans, datetime.now(UTC)))


def select_files(
    files: Iterable[LibraryFile], policy: CleanupPolicy, orphans: Collection[LibraryFile], now: datetime
) -> Iterator[tuple[LibraryFile, CleanupReason]]:
    """Yields the files that the policy selects, oldest first."""
    orphan_paths = {file.path for file in orphans} if policy.orphans else set()
    kept_bytes, is_full, selected = 0, False, []
    for file in sorted(files, key=lambda file: file.modified_at, reverse=True):
        if file.path in orphan_paths:
            selected.append((file, CleanupReason.ORPHAN))
        elif policy.older_than is not None and now - file.modified_at > policy.older_than:
            selected.append((file, CleanupReason.AGE))
        elif policy.keep_newest_bytes is not None:
            kept_bytes += file.size_bytes
            # From the first file that does not fit on, all older ones are selected, however small they are.
            is_full = is_full or kept_bytes > policy.keep_newest_bytes
            if is_full:
                selected.append((file, CleanupReason.SIZE))
    yield from reversed(selected)
