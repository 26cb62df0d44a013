"""The installed models, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound, ServiceError
from generation_service.models.base import AdapterUse, Capability, Model, ModelInfo
from service_runtime.capabilities import MAX_QUOTED_CHARACTERS, check_adapter


class ModelEntry(Protocol):
    """An installed model. Hashable; two entries are equal as long as their files are the same."""

    @property
    def name(self) -> str:
        """The name by which requests select the model."""
        ...

    def describe(self) -> ModelInfo:
        """Returns the model's properties. May read files and import libraries, so it is never called on the event loop.
        Raises ServiceError if the model is unusable."""
        ...

    def load(self) -> Model[Any]:
        """Loads the model, on the device thread. Raises ServiceError if its files or this installation are unusable."""
        ...

    def adapter_problems(self) -> Mapping[str, str]:
        """The installed adapters by name, and why this model can't take one; empty if it can. May read files, as
        `describe`, and raises like it."""
        ...


@dataclass(frozen=True, slots=True)
class BuiltInModel:
    """A model whose properties are known in advance. Implements `ModelEntry`."""

    info: ModelInfo
    build: Callable[[], Model[Any]]

    @property
    def name(self) -> str:
        return self.info.name

    def describe(self) -> ModelInfo:
        return self.info

    def load(self) -> Model[Any]:
        return self.build()

    def adapter_problems(self) -> Mapping[str, str]:
        return {}


class ModelCatalog:
    """The models by name. The first one found is the default, unless another one is configured.

    An unknown name triggers a new search, so a model can be used as soon as it is installed.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[ModelEntry]],
        default_name: str | None = None,
        *,
        installable: Collection[str] = (),
    ) -> None:
        """`installable` contains the names that `dgx-music models pull` accepts. Raises FailedPrecondition or
        InvalidArgument if the default model is not installed."""
        self._find = find
        self._default_name = default_name
        self._installable = installable
        self._infos: dict[ModelEntry, ModelInfo] = {}
        self.refresh()
        if self.default_name not in self._entries:
            raise self._not_found_error(self.default_name, "DGX_MUSIC_DEFAULT_MODEL")

    @property
    def default_name(self) -> str:
        """The model for requests that name none."""
        return self._default_name or next(iter(self._entries))

    @property
    def names(self) -> tuple[str, ...]:
        """The names found by the last search, the default first and the others sorted."""
        default_name = self.default_name
        return tuple(sorted(self._entries, key=lambda name: (name != default_name, name)))

    def refresh(self) -> None:
        """Searches for models again. The first of several models with the same name takes precedence."""
        entries: dict[str, ModelEntry] = {}
        for entry in self._find():
            entries.setdefault(entry.name, entry)
        self._entries = entries
        self._infos = {entry: info for entry, info in self._infos.items() if entries.get(entry.name) == entry}

    async def refresh_names(self) -> tuple[str, ...]:
        """Searches for models again, off the event loop, and returns their names."""
        await asyncio.to_thread(self.refresh)
        return self.names

    def get(self, name: str) -> ModelEntry:
        """Returns the model found by the last search; the default one if `name` is empty. Raises like `describe`."""
        return self._get(name, None)

    async def describe(self, name: str, *, field: str | None = None) -> ModelInfo:
        """Returns the properties of a model, the default one if `name` is empty. They are cached after the first call.

        Raises NotFound, which lists the available models (InvalidArgument if the name comes from a request's `field`),
        and FailedPrecondition if the model is available but not installed, or its files are unusable.
        """
        if name and name not in self._entries:
            await asyncio.to_thread(self.refresh)
        entry = self._get(name, field)
        info = self._infos.get(entry)
        if info is None:
            info = await asyncio.to_thread(entry.describe)
            self._infos[entry] = info
        return info

    async def list_capable(self, capability: Capability) -> list[str]:
        """Returns the names of the usable models that have a capability."""
        names = []
        for name in self.names:
            with suppress(ServiceError):  # The model is unusable at the moment.
                if capability in (await self.describe(name)).capabilities:
                    names.append(name)
        return names

    async def adapter_problems(self, name: str) -> Mapping[str, str]:
        """The installed adapters by name, and why the model can't take one; empty if it can. Raises like `describe`."""
        return await asyncio.to_thread(self._get(name, None).adapter_problems)

    async def check_adapters(self, name: str, adapters: Sequence[AdapterUse]) -> None:
        """Raises InvalidArgument, which names the field, if an adapter is not installed or does not fit the model."""
        if adapters:
            problems = await self.adapter_problems(name)
            for index, adapter in enumerate(adapters):
                check_adapter(index, adapter.name, name, problems)

    def _get(self, name: str, field: str | None) -> ModelEntry:
        name = name or self.default_name
        try:
            return self._entries[name]
        except KeyError:
            raise self._not_found_error(name, field) from None

    def _not_found_error(self, name: str, field: str | None) -> ServiceError:
        if name in self._installable:
            return FailedPrecondition(
                f"model {name!r} is not installed; run `dgx-music models pull {name}`",
                reason="MODEL_NOT_INSTALLED",
                metadata={"model": name},
            )
        name = name[:MAX_QUOTED_CHARACTERS]
        hint = f"available models: {', '.join(sorted(self._entries))}"
        if field is None:
            return NotFound("model", name, hint)
        return InvalidArgument(field, f"there is no model {name!r}; {hint}", reason="MODEL_NOT_FOUND")
