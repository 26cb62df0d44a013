"""Which tensors a component's safetensors files hold, by their headers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from generation_service.models.musicgen.checkpoints.checkpoint import missing_checkpoint
from generation_service.models.musicgen.checkpoints.safetensors_file import has_safetensors, read_safetensors

WEIGHT_FILES = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}
"""Library → the file to which its models are saved."""


@dataclass(frozen=True, slots=True)
class ComponentWeights:
    """The tensors of one component of a pipeline."""

    shapes: Mapping[str, tuple[int, ...]]
    digest: str
    """Of the headers and of a sample of every tensor."""

    @property
    def elements(self) -> int:
        """The number of all parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def read_weights(folder: Path, library: str) -> ComponentWeights:
    """Reads the headers of a component's weights, in one file or in several with an index.

    Raises FailedPrecondition if a file is missing, truncated or not in the format. Pickled weights are never read.
    """
    name = WEIGHT_FILES[library]
    if not has_safetensors(folder, name):
        pickled = next((each.name for each in sorted(folder.glob("*.bin"))), "")
        note = f"; {pickled} is a pickle, which could run code and is not read" if pickled else ""
        raise missing_checkpoint(folder / name, f"no such file; expected weights in the safetensors format{note}")
    # In a folder that has both, diffusers reads the index, and transformers the single file.
    found = read_safetensors(folder, name, prefers_index=library == "diffusers")
    return ComponentWeights({tensor: header.shape for tensor, header in found.headers.items()}, found.digest())
