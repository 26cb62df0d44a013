"""Tensors in safetensors files, one or several with an index, mapped into memory and read when they are used."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint import (
    TensorHeader,
    invalid_checkpoint,
    missing_checkpoint,
)

WEIGHTS_FILE = "model.safetensors"
_INDEX_SUFFIX = ".index.json"
INDEX_FILE = f"{WEIGHTS_FILE}{_INDEX_SUFFIX}"
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
_LENGTH_BYTES = 8
"""The file begins with the length of its header."""
_MAX_HEADER_BYTES = 100_000_000
"""As safetensors itself has it."""
_SAMPLE_BYTES = 4096
"""How much of the beginning, the middle and the end of a tensor the digest covers."""


@dataclass(frozen=True, slots=True)
class SafetensorsFiles:
    """The tensors of one or several files."""

    path: Path
    """The file that errors name: the only one, or the index."""
    headers: Mapping[str, TensorHeader]
    _files: Mapping[Path, tuple[int, int, int]]
    """File → what changes when it is replaced."""
    _file_of: Mapping[str, Path]
    _data: Mapping[str, tuple[int, int]]
    """Where each tensor begins and ends in its file, in bytes."""

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
        with ExitStack() as stack:
            opened = {file: stack.enter_context(file.open("rb")) for file in self._files}
            for name, header in sorted(self.headers.items()):
                digest.update(f"{name} {header.shape} {header.dtype}\n".encode())
                start, end = self._data[name]
                for first in (start, (start + end) // 2, max(start, end - _SAMPLE_BYTES)):
                    opened[self._file_of[name]].seek(first)
                    digest.update(opened[self._file_of[name]].read(min(_SAMPLE_BYTES, end - first)))
        return digest.hexdigest()


def has_safetensors(folder: Path, name: str = WEIGHTS_FILE) -> bool:
    """Whether the folder has the file, or an index of several."""
    return (folder / name).is_file() or (folder / f"{name}{_INDEX_SUFFIX}").is_file()


def read_safetensors(path: Path, name: str = WEIGHTS_FILE, *, prefers_index: bool = False) -> SafetensorsFiles:
    """The headers of a file, or of the files of a folder: the one of this name, or those in its index.

    A folder with both is read from the one file, unless `prefers_index`.

    Raises FailedPrecondition if a file is missing, truncated, or of another format.
    """
    if not path.is_dir():
        return _read_headers(path, [path])
    single, index = path / name, path / f"{name}{_INDEX_SUFFIX}"
    if not index.is_file() or (single.is_file() and not prefers_index):
        return _read_headers(single, [single])
    names = read_json(index, "an index of safetensors files").get("weight_map")
    if not isinstance(names, dict) or not names:
        raise invalid_checkpoint(index, "it has no weight_map; expected an index of safetensors files")
    # Only files beside the index: a name in it is not to reach elsewhere.
    shards = sorted({str(name) for name in names.values()})
    for shard in shards:
        if Path(shard).name != shard:
            raise invalid_checkpoint(index, f"weight_map names the file {shard[:100]!r}, which is not in its folder")
    found = _read_headers(index, [path / shard for shard in shards])
    for tensor, shard in names.items():
        if found._file_of.get(tensor) != path / str(shard):
            raise invalid_checkpoint(path / str(shard), f"it has no {tensor[:200]}, which {index.name} says it has")
    return found


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """A JSON object. Raises FailedPrecondition if the file is missing or has something else than `expected`."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise missing_checkpoint(path, f"no such file; expected {expected}") from None
    except OSError as error:
        raise invalid_checkpoint(path, f"the file can't be read ({error.strerror}); expected {expected}") from None
    except (ValueError, RecursionError) as error:
        raise invalid_checkpoint(path, f"the file is not valid JSON ({error}); expected {expected}") from None
    if not isinstance(content, dict):
        raise invalid_checkpoint(path, f"the file contains a {type(content).__name__}; expected {expected}")
    return content


def _read_headers(path: Path, files: list[Path]) -> SafetensorsFiles:
    headers: dict[str, TensorHeader] = {}
    file_of: dict[str, Path] = {}
    data: dict[str, tuple[int, int]] = {}
    identities: dict[Path, tuple[int, int, int]] = {}
    for file in files:
        if not file.is_file():
            raise missing_checkpoint(file, "no such file; download the model again")
        identities[file] = _identity(file)
        for name, (header, start, end) in _read_header(file).items():
            if name in headers:
                raise invalid_checkpoint(file, f"{name} is also in {file_of[name].name}")
            headers[name], file_of[name], data[name] = header, file, (start, end)
    return SafetensorsFiles(path, headers, identities, file_of, data)


def _read_header(file: Path) -> dict[str, tuple[TensorHeader, int, int]]:
    """The header of each tensor, and where it begins and ends in the file, in bytes.

    It maps nothing: a file larger than all memory is to be refused, not to fail. The format:
    https://huggingface.co/docs/safetensors/index#format
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        prefix = opened.read(_LENGTH_BYTES)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < _LENGTH_BYTES or length > min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES):
            raise _unreadable(file, "its header is longer than the file")
        try:
            raw = json.loads(opened.read(length))
        except (ValueError, RecursionError) as error:
            raise _unreadable(file, f"its header is not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise _unreadable(file, "its header is not a JSON object")
    raw.pop("__metadata__", None)
    found, offset = {}, 0
    base = _LENGTH_BYTES + length
    for name, header, start, end in sorted(
        (_parse_tensor(file, name, tensor) for name, tensor in raw.items()), key=lambda each: each[2:]
    ):
        if start != offset or end - start != header.dtype.itemsize * math.prod(header.shape):
            raise _unreadable(file, f"the data of {name} do not have the size of its shape")
        found[name], offset = (header, base + start, base + end), end
    if base + offset != size:
        raise _unreadable(file, f"it has {size} bytes, but its tensors end at {base + offset}")
    return found


def _parse_tensor(file: Path, name: str, tensor: Any) -> tuple[str, TensorHeader, int, int]:
    try:
        dtype, shape, (start, end) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        integers = [*shape, start, end]
    except (KeyError, TypeError, ValueError):
        raise _unreadable(file, f"the header of {name[:200]} is incomplete") from None
    if not all(type(integer) is int and integer >= 0 for integer in integers):
        raise _unreadable(file, f"the shape and the offsets of {name[:200]} are not whole numbers")
    if dtype not in _DTYPES:
        raise invalid_checkpoint(file, f"{name[:200]} has the unknown dtype {str(dtype)[:20]!r}")
    return name, TensorHeader(tuple(shape), _DTYPES[dtype]), start, end


def _unreadable(file: Path, cause: str) -> FailedPrecondition:
    problem = f"can't be read as safetensors; the file is truncated or of another format ({cause})"
    return invalid_checkpoint(file, problem)


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
        try:
            if file not in self._opened:
                self._opened[file] = self._stack.enter_context(safe_open(file, framework="pt"))
            tensor: Tensor = self._opened[file].get_tensor(name)
        except (RuntimeError, SafetensorError, OSError) as error:  # Such as a file larger than all memory.
            raise invalid_checkpoint(file, f"it can't be mapped into memory ({str(error)[:200]})") from error
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)
