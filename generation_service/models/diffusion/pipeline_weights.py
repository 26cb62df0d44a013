"""Which tensors a component's safetensors files hold, by their headers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint, missing_checkpoint
from generation_service.models.musicgen.checkpoints.safetensors_file import read_json, read_safetensors

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
    shapes: dict[str, tuple[int, ...]] = {}
    digests = []
    for path in _weight_files(folder, WEIGHT_FILES[library]):
        found = read_safetensors(path)
        shapes.update((name, header.shape) for name, header in found.headers.items())
        digests.append(found.digest())
    return ComponentWeights(shapes, "-".join(digests))


def _weight_files(folder: Path, name: str) -> list[Path]:
    index = folder / f"{name}.index.json"
    if not index.is_file():
        path = folder / name
        if not path.is_file():
            pickled = next((each.name for each in sorted(folder.glob("*.bin"))), "")
            note = f"; {pickled} is a pickle, which could run code and is not read" if pickled else ""
            raise missing_checkpoint(path, f"no such file; expected weights in the safetensors format{note}")
        return [path]
    files = read_json(index, "an index of safetensors files").get("weight_map")
    if not isinstance(files, dict) or not files:
        raise invalid_checkpoint(index, "it has no weight_map; expected an index of safetensors files")
    shards = sorted({str(shard) for shard in files.values()})
    for shard in shards:
        if Path(shard).name != shard:
            raise invalid_checkpoint(index, f"weight_map names the file {shard[:100]!r}, which is not in its folder")
    return [folder / shard for shard in shards]
