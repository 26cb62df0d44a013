"""The number and size of the library's files, and the space left on its disk."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field

from export_service.library.audio_library import FileInventory
from export_service.library.inventory import FileKind, LibraryFile
from export_service.library.store import SPOOL


@dataclass
class FileTotals:
    """The number of files in a group and their size together."""

    files: int = 0
    bytes: int = 0

    def add(self, file: LibraryFile) -> None:
        self.files += 1
        self.bytes += file.size_bytes


@dataclass
class LibraryStatistics:
    """Totals of all files, and the same files grouped by kind, by extension and by day."""

    total: FileTotals = field(default_factory=FileTotals)
    kinds: dict[FileKind, FileTotals] = field(default_factory=dict)
    extensions: dict[str, FileTotals] = field(default_factory=dict)
    """By extension without the dot, for example "wav"."""
    days: dict[str, FileTotals] = field(default_factory=dict)
    """Outputs only, by the UTC day on which they were added ("YYYY-MM-DD"), oldest first."""
    free_bytes: int = 0
    """Free space on the library's disk."""
    disk_bytes: int = 0
    """Size of the library's disk."""
    spool_bytes: int = 0
    """Size of the samples in the spool, which is not part of the totals."""


def collect_statistics(inventory: FileInventory) -> LibraryStatistics:
    """Counts all files without opening any. Raises OSError. Blocks: call it in a thread."""
    statistics = LibraryStatistics()
    for file in inventory.iter_files():
        statistics.total.add(file)
        statistics.kinds.setdefault(file.kind, FileTotals()).add(file)
        statistics.extensions.setdefault(file.path.suffix[1:], FileTotals()).add(file)
        if file.kind is FileKind.OUTPUT:
            statistics.days.setdefault(file.day, FileTotals()).add(file)
    statistics.days = dict(sorted(statistics.days.items()))
    disk = shutil.disk_usage(inventory.data_dir)
    statistics.free_bytes, statistics.disk_bytes = disk.free, disk.total
    for path in (inventory.data_dir / SPOOL).iterdir():
        with suppress(FileNotFoundError):  # It was removed in the meantime.
            statistics.spool_bytes += path.stat().st_size
    return statistics
