"""The models there are, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from generation_service.model import Model, ModelInfo
from generation_service.sketch import Sketch
from service_runtime.errors import InvalidArgument, NotFound


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model that can be had: what it is, and how it is brought into memory."""

    info: ModelInfo
    load: Callable[[], Model[Any]]
    """Called on the device thread at first use. Raises ServiceError where the reason is one for the caller."""


class ModelCatalog:
    """Models by name; the first is the default unless another one is named."""

    def __init__(self, entries: Iterable[ModelEntry], default_name: str | None = None) -> None:
        self._entries = {entry.info.name: entry for entry in entries}
        self.default_name = default_name or next(iter(self._entries))
        if self.default_name not in self._entries:
            raise InvalidArgument("DGX_MUSIC_DEFAULT_MODEL", self._unknown(self.default_name))

    @property
    def names(self) -> tuple[str, ...]:
        """In order of name, the default first."""
        return tuple(sorted(self._entries, key=lambda name: (name != self.default_name, name)))

    def get(self, name: str) -> ModelEntry:
        """The model of that name, the default one where it is empty. Raises NotFound that says which there are."""
        try:
            return self._entries[name or self.default_name]
        except KeyError:
            raise NotFound("model", name[:100], self._those_there_are()) from None

    def choose(self, name: str, field: str = "model_name") -> ModelEntry:
        """As `get`, for a request's `field`: raises InvalidArgument."""
        try:
            return self._entries[name or self.default_name]
        except KeyError:
            raise InvalidArgument(field, self._unknown(name), reason="MODEL_NOT_FOUND") from None

    def _unknown(self, name: str) -> str:
        return f"there is no model {name[:100]!r}; {self._those_there_are()}"

    def _those_there_are(self) -> str:
        return f"there are: {', '.join(sorted(self._entries))}"


def installed_models(default_name: str | None = None) -> ModelCatalog:
    """The models that this installation has, the preferred one first."""
    return ModelCatalog([ModelEntry(Sketch().info, Sketch)], default_name)
