"""The models there are, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound, ServiceError
from generation_service.models.base import Model, ModelInfo


class ModelEntry(Protocol):
    """A model that can be had. Hashable; equal as long as its files are the same."""

    @property
    def name(self) -> str:
        """What requests call it."""
        ...

    def describe(self) -> ModelInfo:
        """What it is. May read files and import libraries, so never on the event loop. Raises ServiceError."""
        ...

    def load(self) -> Model[Any]:
        """Brings it into memory; called on the device thread. Raises ServiceError where the reason is the caller's."""
        ...


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model of which all is known beforehand. Implements `ModelEntry`."""

    info: ModelInfo
    make: Callable[[], Model[Any]]

    @property
    def name(self) -> str:
        return self.info.name

    def describe(self) -> ModelInfo:
        return self.info

    def load(self) -> Model[Any]:
        return self.make()


class ModelCatalog:
    """Models by name; the first found is the default unless another one is named.

    They are looked for again whenever a name is not known, so one that is installed now can be used now.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[ModelEntry]],
        default_name: str | None = None,
        *,
        installable: Collection[str] = (),
    ) -> None:
        """`installable`: names that `dgx-music models pull` knows. Raises FailedPrecondition or InvalidArgument where
        the default is not there."""
        self._find = find
        self._default_name = default_name
        self._installable = installable
        self._infos: dict[ModelEntry, ModelInfo] = {}
        self.refresh()
        if self.default_name not in self._entries:
            raise self._missing(self.default_name, "DGX_MUSIC_DEFAULT_MODEL")

    @property
    def default_name(self) -> str:
        """Taken where a request names no model."""
        return self._default_name or next(iter(self._entries))

    @property
    def names(self) -> tuple[str, ...]:
        """As found last: in order of name, the default first."""
        default_name = self.default_name
        return tuple(sorted(self._entries, key=lambda name: (name != default_name, name)))

    def refresh(self) -> None:
        """Looks for models again. Of two of the same name the first is taken."""
        entries: dict[str, ModelEntry] = {}
        for entry in self._find():
            entries.setdefault(entry.name, entry)
        self._entries = entries
        self._infos = {entry: info for entry, info in self._infos.items() if entries.get(entry.name) == entry}

    async def refreshed_names(self) -> tuple[str, ...]:
        """Looks for models again, off the event loop."""
        await asyncio.to_thread(self.refresh)
        return self.names

    def get(self, name: str) -> ModelEntry:
        """The model as found last, the default one where the name is empty. Raises as `describe`."""
        return self._get(name, None)

    async def describe(self, name: str, *, field: str | None = None) -> ModelInfo:
        """What the model is, the default one where the name is empty; quick from the second time on.

        Raises NotFound that says which there are (InvalidArgument for a request's `field`), and FailedPrecondition
        for one that can be installed but is not, or whose files can't be used.
        """
        if name and name not in self._entries:
            await asyncio.to_thread(self.refresh)
        entry = self._get(name, field)
        info = self._infos.get(entry)
        if info is None:
            info = await asyncio.to_thread(entry.describe)
            self._infos[entry] = info
        return info

    def _get(self, name: str, field: str | None) -> ModelEntry:
        name = name or self.default_name
        try:
            return self._entries[name]
        except KeyError:
            raise self._missing(name, field) from None

    def _missing(self, name: str, field: str | None) -> ServiceError:
        if name in self._installable:
            return FailedPrecondition(
                f"model {name!r} is not installed; dgx-music models pull {name}",
                reason="MODEL_NOT_INSTALLED",
                metadata={"model": name},
            )
        those_there_are = f"there are: {', '.join(sorted(self._entries))}"
        if field is None:
            return NotFound("model", name[:100], those_there_are)
        return InvalidArgument(field, f"there is no model {name[:100]!r}; {those_there_are}", reason="MODEL_NOT_FOUND")
