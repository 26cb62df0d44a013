"""Which tensors a component's safetensors files hold, by their headers alone.

The format: https://huggingface.co/docs/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgx_music.errors import FailedPrecondition

WEIGHT_FILES = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}
"""Library → the file to which its models are saved."""
MAX_HEADER_BYTES = 100_000_000
"""The limit of safetensors itself."""
MAX_JSON_BYTES = 10_000_000
_SAMPLES, _SAMPLE_BYTES = 64, 16384
_BITS = {
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "F16": 16,
    "BF16": 16,
    "I16": 16,
    "U16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
}


@dataclass(frozen=True, slots=True)
class ComponentWeights:
    """The tensors of one component of a pipeline."""

    shapes: Mapping[str, tuple[int, ...]]
    digest: bytes
    """Of the headers, and of samples of the data: a digest of gigabytes would take seconds."""

    @property
    def elements(self) -> int:
        """The number of all parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def invalid_pipeline(path: Path, problem: str) -> FailedPrecondition:
    """Returns the error about a file that is not what a pipeline needs."""
    return FailedPrecondition(f"{path}: {problem}", reason="CHECKPOINT_INVALID", metadata={"file": str(path)})


def missing_file(path: Path, expected: str) -> FailedPrecondition:
    """Returns the error about a file that a pipeline needs and the folder lacks."""
    message = f"{path}: no such file; expected {expected}"
    return FailedPrecondition(message, reason="CHECKPOINT_MISSING", metadata={"file": str(path)})


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file. Raises FailedPrecondition if there is none."""
    if not path.is_file():
        raise missing_file(path, "a folder as diffusers' save_pretrained writes it")
    try:
        text = path.read_bytes() if path.stat().st_size <= MAX_JSON_BYTES else b""
        value = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise invalid_pipeline(path, "it is not JSON; download the model again") from error
    if not isinstance(value, dict):
        raise invalid_pipeline(path, f"expected a JSON object, not {type(value).__name__}")
    return value


def read_weights(folder: Path, library: str) -> ComponentWeights:
    """Reads the headers of a component's weights, in one file or in several with an index.

    Raises FailedPrecondition if a file is missing, truncated or not in the format. Pickled weights are not read.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    digest = hashlib.blake2b()
    for path in _weight_files(folder, WEIGHT_FILES[library]):
        header, data_start = _read_header(path)
        size = path.stat().st_size - data_start
        shapes.update(_read_shapes(path, header, size))
        digest.update(json.dumps(header, sort_keys=True).encode())
        for sample in _samples(path, data_start, size):
            digest.update(sample)
    return ComponentWeights(shapes, digest.digest())


def _weight_files(folder: Path, name: str) -> list[Path]:
    index = folder / f"{name}.index.json"
    if not index.is_file():
        path = folder / name
        if not path.is_file():
            pickled = next((each.name for each in sorted(folder.glob("*.bin"))), "")
            note = f"; {pickled} is a pickle, which could run code and is not read" if pickled else ""
            raise missing_file(path, f"weights in the safetensors format{note}")
        return [path]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise invalid_pipeline(index, "weight_map does not map tensors to files")
    names = sorted(set(weight_map.values()))
    for each in names:
        if Path(each).name != each or not each.endswith(".safetensors"):
            raise invalid_pipeline(index, f"{each[:100]!r} is not a safetensors file beside the index")
        if not (folder / each).is_file():
            raise missing_file(folder / each, f"all {len(names)} parts of the weights")
    return [folder / each for each in names]


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the header, and where the data starts."""
    truncated = "the file is truncated or is not in the safetensors format; download the model again"
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, path.stat().st_size - 8):
            raise invalid_pipeline(path, truncated)
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise invalid_pipeline(path, truncated) from error
    if not isinstance(header, dict):
        raise invalid_pipeline(path, truncated)
    return header, 8 + length


def _read_shapes(path: Path, header: Mapping[str, Any], size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    end_of_data = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            shape = tuple(map(int, entry["shape"]))
            start, end = map(int, entry["data_offsets"])
            expected_bytes = math.prod(shape) * _BITS[entry["dtype"]] // 8
        except (KeyError, TypeError, ValueError) as error:
            raise invalid_pipeline(path, f"the header does not describe tensor {name[:100]!r}") from error
        if min(shape, default=0) < 0 or end - start != expected_bytes or not 0 <= start <= end:
            raise invalid_pipeline(path, f"the header contradicts itself about tensor {name[:100]!r}")
        if end > size:
            raise invalid_pipeline(
                path, f"the file is truncated: it ends before tensor {name[:100]!r} does; download the model again"
            )
        end_of_data = max(end_of_data, end)
        yield name, shape
    if end_of_data != size:
        raise invalid_pipeline(path, f"{size - end_of_data} bytes follow the last tensor; download the model again")


def _samples(path: Path, start: int, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        for index in range(_SAMPLES):
            file.seek(start + size * index // _SAMPLES)
            yield file.read(_SAMPLE_BYTES)
