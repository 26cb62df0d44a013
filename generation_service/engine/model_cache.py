"""The models that are in memory."""

from __future__ import annotations

import gc
import time
from typing import Any, Protocol, runtime_checkable

from generation_service.models.base import Model, ModelInfo
from generation_service.models.catalog import ModelCatalog
from generation_service.models.device import give_back_memory
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)


class CacheMemory(Protocol):
    """What a model's sequences may keep together, in bytes."""

    @property
    def reserved_bytes(self) -> int: ...

    @property
    def limit_bytes(self) -> int: ...


@runtime_checkable
class KeepsCache(Protocol):
    """A model whose sequences reserve memory of a bounded whole."""

    @property
    def memory(self) -> CacheMemory: ...


class LoadedModels:
    """Loads and forgets models on the device thread; what is here can be asked from any thread.

    They go by all that is known of them: files that changed under a model's name make another model, beside the one
    that is loaded until that is forgotten.
    """

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog
        self._models: dict[ModelInfo, Model[Any]] = {}

    def __contains__(self, info: ModelInfo) -> bool:
        return info in self._models

    @property
    def names(self) -> set[str]:
        """Of those in memory."""
        return {info.name for info in tuple(self._models)}

    def get(self, info: ModelInfo) -> Model[Any]:
        """The model, brought into memory if it is not. Raises what loading raises."""
        if info not in self._models:
            began = time.monotonic()
            self._models[info] = self._catalog.get(info.name).load()
            log.info("model loaded", model=info.name, seconds=round(time.monotonic() - began, 3))
        return self._models[info]

    def forget(self, name: str) -> None:
        """Gives back the memory of all models of that name."""
        self._models = {info: model for info, model in self._models.items() if info.name != name}
        gc.collect()  # A network may refer to itself, and its gigabytes should not wait for the next collection.
        give_back_memory()
        log.info("model unloaded", model=name)

    def cache_bytes(self) -> tuple[int, int]:
        """Reserved by sequences, and the limit, over all models."""
        memories = [model.memory for model in tuple(self._models.values()) if isinstance(model, KeepsCache)]
        return sum(memory.reserved_bytes for memory in memories), sum(memory.limit_bytes for memory in memories)
