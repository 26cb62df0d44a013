"""Tensors under other names than their file's, some of them put together from several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import TensorHeader, invalid_checkpoint

Sources = Mapping[str, tuple[str, ...]]
"""Name → the names in the file of the tensors that make it up, along the first dimension."""


@dataclass(frozen=True, slots=True)
class RenamedTensors(Mapping[str, Tensor]):
    """Each tensor is read, and put together, when it is looked up."""

    tensors: Mapping[str, Tensor]
    sources: Sources

    def __getitem__(self, name: str) -> Tensor:
        parts = [self.tensors[source] for source in self.sources[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)


def sources_below(prefix: str, headers: Mapping[str, TensorHeader]) -> Sources:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): (name,) for name in headers if name.startswith(prefix)}


def group_sources(
    headers: Mapping[str, TensorHeader], rename: Callable[[str], tuple[str, int, int] | None], path: Path
) -> Sources:
    """Groups the tensors of a file by what they make up. `rename` returns for a name in the file the new name, which of
    its parts this is, and the number of parts; None for tensors of something else.

    Raises FailedPrecondition if parts are missing.
    """
    parts: dict[str, list[str | None]] = {}
    for name in headers:
        if (renamed := rename(name)) is not None:
            new_name, index, count = renamed
            parts.setdefault(new_name, [None] * count)[index] = name
    sources = {}
    for new_name, names in parts.items():
        present = tuple(name for name in names if name is not None)
        if len(present) != len(names):
            raise invalid_checkpoint(path, f"it has {', '.join(present)}, but not what belongs to it")
        sources[new_name] = present
    return sources


def renamed_headers(headers: Mapping[str, TensorHeader], sources: Sources) -> dict[str, TensorHeader]:
    """The headers of the tensors as they are put together."""
    renamed = {}
    for new_name, names in sources.items():
        first = headers[names[0]]
        rows = sum(headers[name].shape[0] if headers[name].shape else 0 for name in names)
        renamed[new_name] = TensorHeader((rows, *first.shape[1:]) if first.shape else (), first.dtype)
    return renamed
