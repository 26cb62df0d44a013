"""The models that are loaded into memory."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any, Protocol, runtime_checkable

from generation_service.models.base import Model, ModelInfo, PromptEncoder
from generation_service.models.catalog import ModelCatalog
from generation_service.models.device import empty_device_cache
from generation_service.models.execution import ModelExecution
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)


class KvCacheMemory(Protocol):
    """The KV memory that all sequences of a model share."""

    @property
    def reserved_bytes(self) -> int: ...

    @property
    def limit_bytes(self) -> int: ...


@runtime_checkable
class HasKvCache(Protocol):
    """A model whose sequences reserve their KV caches from a limited memory."""

    @property
    def memory(self) -> KvCacheMemory: ...


@runtime_checkable
class HasExecution(Protocol):
    """A model that says how it runs."""

    def execution(self) -> ModelExecution: ...


class ModelCache:
    """Loads and unloads models on the device thread. Everything else can be called from any thread.

    The key is the full `ModelInfo`: if a model's files change, the changed model is loaded beside the old one, which
    stays in memory until it is unloaded.
    """

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog
        self._models: dict[ModelInfo, Model[Any]] = {}
        self.loading = threading.Lock()
        """Held while a model is loaded. The prompt thread holds it while it encodes, because a CUDA graph can't be
        captured while another thread allocates memory."""

    def __contains__(self, info: ModelInfo) -> bool:
        return info in self._models

    @property
    def names(self) -> set[str]:
        """The names of the loaded models."""
        return {info.name for info in tuple(self._models)}

    def get(self, info: ModelInfo) -> Model[Any]:
        """Returns the model, and loads it first if necessary. Raises whatever loading it raises."""
        model = self._models.get(info)
        if model is None:
            started_at = time.monotonic()
            with self.loading:
                model = self._models[info] = self._catalog.get(info.name).load()
            log.info("model_loaded", model=info.name, seconds=round(time.monotonic() - started_at, 3))
        return model

    def prompt_encoder(self, info: ModelInfo) -> PromptEncoder | None:
        """Returns the model if it is loaded and encodes prompts ahead."""
        model = self._models.get(info)
        return model if isinstance(model, PromptEncoder) else None

    def unload(self, name: str) -> None:
        """Frees the memory of all loaded models with this name."""
        self._models = {info: model for info, model in self._models.items() if info.name != name}
        # A network may contain reference cycles; do not wait for the next collection to free gigabytes.
        gc.collect()
        empty_device_cache()
        log.info("model_unloaded", model=name)

    def executions(self) -> dict[ModelInfo, ModelExecution | None]:
        """Returns the loaded models, and how each runs; None for a model that does not say."""
        return {
            info: model.execution() if isinstance(model, HasExecution) else None
            for info, model in tuple(self._models.items())
        }

    def kv_cache_bytes(self) -> tuple[int, int]:
        """Returns the KV memory that sequences have reserved and its limit, in bytes, summed over all models."""
        memories = [model.memory for model in tuple(self._models.values()) if isinstance(model, HasKvCache)]
        return sum(memory.reserved_bytes for memory in memories), sum(memory.limit_bytes for memory in memories)
