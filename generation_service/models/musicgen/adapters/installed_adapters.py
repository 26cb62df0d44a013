"""Finds the adapters that are installed: the folders in `<data_dir>/adapters`. Opens no file and imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service_runtime.validation import is_name

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class InstalledAdapter:
    """A folder with an adapter, which may turn out to be invalid."""

    name: str
    folder: Path

    def fingerprint(self) -> tuple[int, ...]:
        """Changes with the files; empty if they are missing."""
        try:
            stats = [(self.folder / name).stat() for name in (CONFIG_FILE, WEIGHTS_FILE)]
        except OSError:
            return ()
        return tuple(value for stat in stats for value in (stat.st_mtime_ns, stat.st_size, stat.st_ino))


def find_adapters(folder: Path) -> list[InstalledAdapter]:
    """The adapters in a folder, sorted by name. Folders without PEFT's configuration are none, nor are those whose
    names no request could have."""
    try:
        return [
            InstalledAdapter(each.name, each)
            for each in sorted(folder.iterdir())
            if is_name(each.name) and (each / CONFIG_FILE).is_file()
        ]
    except OSError:
        return []
