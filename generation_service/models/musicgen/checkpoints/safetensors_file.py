"""Tensors in safetensors files, one or several with an index, mapped into memory and read when they are used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import (
    TensorHeader,
    invalid_checkpoint,
    missing_checkpoint,
)

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_SAMPLE_BYTES = 4096
"""How much of the beginning, the middle and the end of a tensor the digest covers."""


@dataclass(frozen=True, slots=True)
class SafetensorsFiles:
    """The tensors of one or several files."""

    path: Path
    """The file that errors name: the only one, or the index."""
    headers: Mapping[str, TensorHeader]
    metadata: Mapping[str, str]
    """The texts that the writer added to the (first) file."""
    _files: Mapping[Path, tuple[int, int, int]]
    """File → what changes when it is replaced."""
    _file_of: Mapping[str, Path]

    def map_tensors(self) -> Mapping[str, Tensor]:
        """All tensors by name. Raises FailedPrecondition if a file has been replaced since its headers were read."""
        for file, identity in self._files.items():
            if _identity(file) != identity:
                raise invalid_checkpoint(file, "the file was replaced during loading; load the model again")
        return _MappedTensors(self._file_of)

    def digest(self) -> str:
        """16 hexadecimal digits from the headers and a sample of every tensor: its first, middle and last 4 KB.

        The format has no checksums, and reading gigabytes only to name a version would take longer than loading them.
        """
        digest = hashlib.blake2b(digest_size=8)
        tensors = self.map_tensors()
        for name, header in sorted(self.headers.items()):
            digest.update(f"{name} {header.shape} {header.dtype}\n".encode())
            data = tensors[name].reshape(-1).view(torch.uint8)
            middle = len(data) // 2
            for part in (data[:_SAMPLE_BYTES], data[middle : middle + _SAMPLE_BYTES], data[-_SAMPLE_BYTES:]):
                digest.update(part.numpy().tobytes())
        return digest.hexdigest()


def has_safetensors(folder: Path) -> bool:
    return (folder / WEIGHTS_FILE).is_file() or (folder / INDEX_FILE).is_file()


def read_safetensors(path: Path) -> SafetensorsFiles:
    """The headers of a file, or of the files of a folder: `model.safetensors`, else those in its index.

    Raises FailedPrecondition if a file is missing, truncated, or of another format.
    """
    if not path.is_dir():
        return _read_headers(path, [path])
    if (path / WEIGHTS_FILE).is_file() or not (path / INDEX_FILE).is_file():
        return _read_headers(path / WEIGHTS_FILE, [path / WEIGHTS_FILE])
    index = path / INDEX_FILE
    names = read_json(index, "an index of safetensors files").get("weight_map")
    if not isinstance(names, dict) or not names:
        raise invalid_checkpoint(index, "it has no weight_map; expected an index of safetensors files")
    # Only files beside the index: a name in it is not to reach elsewhere.
    shards = sorted({str(name) for name in names.values()})
    for shard in shards:
        if Path(shard).name != shard:
            raise invalid_checkpoint(index, f"weight_map names the file {shard[:100]!r}, which is not in its folder")
    found = _read_headers(index, [path / shard for shard in shards])
    for name, shard in names.items():
        if found._file_of.get(name) != path / str(shard):
            raise invalid_checkpoint(path / str(shard), f"it has no {name[:200]}, which {INDEX_FILE} says it has")
    return found


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """A JSON object. Raises FailedPrecondition if the file is missing or has something else than `expected`."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise missing_checkpoint(path, f"no such file; expected {expected}") from None
    except (ValueError, RecursionError) as error:
        raise invalid_checkpoint(path, f"the file is not valid JSON ({error}); expected {expected}") from None
    if not isinstance(content, dict):
        raise invalid_checkpoint(path, f"the file contains a {type(content).__name__}; expected {expected}")
    return content


def _read_headers(path: Path, files: list[Path]) -> SafetensorsFiles:
    headers: dict[str, TensorHeader] = {}
    file_of: dict[str, Path] = {}
    identities: dict[Path, tuple[int, int, int]] = {}
    metadata: dict[str, str] = {}
    for file in files:
        if not file.is_file():
            raise missing_checkpoint(file, "no such file; download the model again")
        identities[file] = _identity(file)
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = metadata or dict(opened.metadata() or {})
                for name in opened.keys():  # noqa: SIM118 - it can't be iterated over
                    view = opened.get_slice(name)
                    if (dtype := _DTYPES.get(view.get_dtype())) is None:
                        raise invalid_checkpoint(file, f"{name} has the unknown dtype {view.get_dtype()}")
                    if name in headers:
                        raise invalid_checkpoint(file, f"{name} is also in {file_of[name].name}")
                    headers[name], file_of[name] = TensorHeader(tuple(view.get_shape()), dtype), file
        except (SafetensorError, OSError) as error:
            problem = f"can't be read as safetensors; the file is truncated or of another format ({error})"
            raise invalid_checkpoint(file, problem) from None
    return SafetensorsFiles(path, headers, metadata, identities, file_of)


def _identity(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_ino, found.st_size, found.st_mtime_ns


class _MappedTensors(Mapping[str, Tensor]):
    """Tensors by name; each is mapped from its file when it is looked up."""

    def __init__(self, file_of: Mapping[str, Path]) -> None:
        self._file_of = file_of
        self._opened: dict[Path, Any] = {}
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Tensor:
        file = self._file_of[name]
        if file not in self._opened:
            self._opened[file] = self._stack.enter_context(safe_open(file, framework="pt"))
        tensor: Tensor = self._opened[file].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)
