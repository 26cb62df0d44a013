"""The installed adapters for one language model: which of them fit, and their weights."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dgx_music.errors import FailedPrecondition
from generation_service.models.base import AdapterUse
from generation_service.models.musicgen.adapters.adapter_config import invalid_adapter
from generation_service.models.musicgen.adapters.adapter_file import (
    AdapterFile,
    adapter_digest,
    load_adapter,
    read_adapter,
)
from generation_service.models.musicgen.adapters.adapter_targets import MELODY_PROJECTION
from generation_service.models.musicgen.adapters.adapter_weights import AdapterWeights, AppliedAdapter, combine_modules
from generation_service.models.musicgen.adapters.installed_adapters import InstalledAdapter, find_adapters
from generation_service.models.musicgen.adapters.merged_checkpoint import merge_adapters
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint, TensorHeader
from generation_service.models.musicgen.checkpoints.config import LmConfig
from service_runtime.capabilities import check_adapter, unusable_adapter_error

MAX_CACHED_BYTES = 1 << 30
"""The most recently used adapters are kept in memory up to this size. Running requests hold theirs in any case."""


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
        self._problems: dict[tuple[str, tuple[int, ...]], str] = {}
        self._lock = threading.Lock()

    def problems(self) -> dict[str, str]:
        """The installed adapters by name, and why the model can't take one; empty if it can. Reads only headers, and
        those only once."""
        problems = {}
        for adapter in self._find_all():
            key = adapter.name, adapter.fingerprint()
            if key not in self._problems:
                self._problems[key] = self._find_problem(adapter)
            problems[adapter.name] = self._problems[key]
        return problems

    def load(self, uses: Sequence[AdapterUse]) -> tuple[AppliedAdapter, ...]:
        """The adapters of a request, sorted by name. Those that are not in memory are read.

        Raises InvalidArgument, which names the adapter's field, if one is not installed or does not fit the model.
        """
        applied = []
        for index, use in enumerate(uses):
            with self._naming_field(index, use.name):
                applied.append(AppliedAdapter(self._load(use.name), use.scale))
        return tuple(sorted(applied, key=lambda each: each.weights.name))

    def merge(self, checkpoint: Checkpoint, uses: Sequence[AdapterUse]) -> Checkpoint:
        """The model's checkpoint with adapters merged into its tensors. Raises like `load`."""
        files = []
        for index, use in enumerate(uses):
            with self._naming_field(index, use.name):
                files.append((read_adapter(self._find(use.name).folder, self._config, self._headers), use.scale))
        return merge_adapters(checkpoint, files)

    @contextmanager
    def _naming_field(self, index: int, name: str) -> Iterator[None]:
        try:
            yield
        except LookupError:
            check_adapter(index, name, self._model, self.problems())
            raise
        except FailedPrecondition as error:
            raise unusable_adapter_error(index, name, self._model, error.message) from error
        except OSError as error:
            raise unusable_adapter_error(index, name, self._model, f"can't be read ({error})") from error

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
        file = read_adapter(adapter.folder, self._config, self._headers)
        if any(module.target.layer == MELODY_PROJECTION for module in file.modules):
            problem = (
                "changes how melodies are encoded, which works only for all requests alike; merge it with "
                f"`dgx-music models convert {self._model} --adapter {adapter.name} --name NEW`"
            )
            raise invalid_adapter(adapter.folder, problem)
        return file

    def _find_all(self) -> list[InstalledAdapter]:
        return [] if self._folder is None else find_adapters(self._folder)

    def _find(self, name: str) -> InstalledAdapter:
        # The folder is listed and not asked for the name, which comes from a request.
        return {adapter.name: adapter for adapter in self._find_all()}[name]

    def _find_problem(self, adapter: InstalledAdapter) -> str:
        try:
            self._read(adapter)
        except FailedPrecondition as error:
            return error.message
        return ""
