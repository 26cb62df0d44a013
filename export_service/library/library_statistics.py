"""How much there is in the library, and how much room is left."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

from export_service.library.inventory import Inventory, Kind, LibraryFile


@dataclass
class Figures:
    """Of some files."""

    files: int = 0
    bytes: int = 0

    def add(self, file: LibraryFile) -> None:
        self.files += 1
        self.bytes += file.size_bytes


@dataclass
class LibraryStatistics:
    """Of all files. Days are those on which outputs landed, "YYYY-MM-DD", and in their order."""

    total: Figures = field(default_factory=Figures)
    kinds: dict[Kind, Figures] = field(default_factory=dict)
    extensions: dict[str, Figures] = field(default_factory=dict)
    """By extension, "wav" for example."""
    days: dict[str, Figures] = field(default_factory=dict)
    free_bytes: int = 0
    disk_bytes: int = 0


def statistics(inventory: Inventory) -> LibraryStatistics:
    """Counts all files, without opening any. Raises OSError. Blocks: call it on a thread."""
    found = LibraryStatistics()
    for file in inventory.files():
        found.total.add(file)
        found.kinds.setdefault(file.kind, Figures()).add(file)
        found.extensions.setdefault(file.path.suffix[1:], Figures()).add(file)
        if file.kind is Kind.OUTPUT:
            found.days.setdefault("-".join(file.path.parts[-4:-1]), Figures()).add(file)
    found.days = dict(sorted(found.days.items()))
    usage = shutil.disk_usage(inventory.data_dir)
    found.free_bytes, found.disk_bytes = usage.free, usage.total
    return found
