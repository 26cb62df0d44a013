"""The adapters that are installed: the folders in `<data_dir>/adapters`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound
from generation_service.models.base import AdapterUse
from generation_service.models.musicgen.adapters.adapter_config import CONFIG_FILE
from generation_service.models.musicgen.adapters.adapter_file import (
    WEIGHTS_FILE,
    AdapterFile,
    adapter_digest,
    load_adapter,
    read_adapter,
)
from generation_service.models.musicgen.adapters.adapter_weights import AdapterWeights, AppliedAdapter, combine_modules
from generation_service.models.musicgen.checkpoints.checkpoint import TensorHeader
from generation_service.models.musicgen.checkpoints.config import LmConfig

MAX_CACHED_BYTES = 1 << 30
"""The most recently used adapters are kept in memory up to this size. Running requests hold theirs in any case."""
MAX_QUOTED_CHARACTERS = 100
"""How much of an unknown adapter's name an error quotes."""


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
    """The adapters in a folder, sorted by name. Folders without PEFT's configuration are none."""
    try:
        return [
            InstalledAdapter(each.name, each) for each in sorted(folder.iterdir()) if (each / CONFIG_FILE).is_file()
        ]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


class AdapterRegistry:
    """The installed adapters for one language model. Any thread can call it."""

    def __init__(self, folder: Path | None, model: str, config: LmConfig, headers: Mapping[str, TensorHeader]) -> None:
        """`folder` has the adapters, or is None if there are none. `model` is the name for errors; `headers` are those
        of the model's tensors."""
        self._folder = folder
        self._model = model
        self._config = config
        self._headers = headers
        self._cache: OrderedDict[str, tuple[tuple[int, ...], AdapterWeights]] = OrderedDict()
        self._lock = threading.Lock()

    def problems(self) -> dict[str, str]:
        """The installed adapters by name, and why this model can't take one; empty if it can."""
        problems = {}
        for adapter in self._find_all():
            try:
                self._read(adapter)
                problems[adapter.name] = ""
            except FailedPrecondition as error:
                problems[adapter.name] = error.message
        return problems

    def check(self, uses: Sequence[AdapterUse]) -> None:
        """Raises InvalidArgument, which names the adapter's field, if one is not installed or does not fit the model.
        Reads only headers."""
        for index, use in enumerate(uses):
            with self._naming_field(index):
                self._read(self._find(use.name))

    def load(self, uses: Sequence[AdapterUse]) -> tuple[AppliedAdapter, ...]:
        """The adapters of a request, sorted by name. Those that are not in memory are read. Raises like `check`."""
        applied = []
        for index, use in enumerate(uses):
            with self._naming_field(index):
                applied.append(AppliedAdapter(self._load(use.name), use.scale))
        return tuple(sorted(applied, key=lambda each: each.weights.name))

    def _load(self, name: str) -> AdapterWeights:
        with self._lock:
            adapter = self._find(name)
            fingerprint = adapter.fingerprint()
            known, weights = self._cache.get(name, ((), None))
            if weights is None or known != fingerprint:
                modules = load_adapter(self._read(adapter))
                weights = combine_modules(name, adapter_digest(adapter.folder), modules)
                self._cache[name] = fingerprint, weights
            self._cache.move_to_end(name)
            while len(self._cache) > 1 and sum(each.size_bytes for _, each in self._cache.values()) > MAX_CACHED_BYTES:
                self._cache.popitem(last=False)
            return weights

    def _read(self, adapter: InstalledAdapter) -> AdapterFile:
        return read_adapter(adapter.folder, self._config, self._headers)

    def _find_all(self) -> list[InstalledAdapter]:
        return [] if self._folder is None else find_adapters(self._folder)

    def _find(self, name: str) -> InstalledAdapter:
        # The folder is listed and not asked for the name, which comes from a request.
        installed = {adapter.name: adapter for adapter in self._find_all()}
        try:
            return installed[name]
        except KeyError:
            hint = f"installed: {', '.join(installed)}" if installed else f"put one into {self._folder}/NAME"
            raise NotFound("adapter", name[:MAX_QUOTED_CHARACTERS], hint) from None

    @contextmanager
    def _naming_field(self, index: int) -> Iterator[None]:
        field = f"conditioning.adapters[{index}].name"
        try:
            yield
        except NotFound as error:
            raise InvalidArgument(field, error.message, reason="ADAPTER_NOT_FOUND") from error
        except FailedPrecondition as error:
            problem = f"does not fit the model {self._model!r}: {error.message}"
            raise InvalidArgument(field, problem, reason="ADAPTER_INVALID") from error
