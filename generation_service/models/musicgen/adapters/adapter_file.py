"""Reads the tensors of a LoRA adapter: PEFT's `adapter_model.safetensors`. The header is checked first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from generation_service.models.musicgen.adapters.adapter_config import (
    AdapterConfig,
    invalid_adapter,
    read_adapter_config,
)
from generation_service.models.musicgen.adapters.adapter_targets import EMBEDDING, Target, find_target
from generation_service.models.musicgen.adapters.installed_adapters import CONFIG_FILE, WEIGHTS_FILE
from generation_service.models.musicgen.checkpoints.checkpoint import TensorHeader
from generation_service.models.musicgen.checkpoints.config import LmConfig

MAX_MAGNITUDE = 65504.0
"""The largest value in fp16. With larger ones, products could overflow that are to be multiplied by a scale of 0."""

_PREFIX = "base_model.model."
"""What PEFT puts before the path of every module."""
_SUFFIXES = {".lora_A.weight": "a", ".lora_B.weight": "b", ".lora_embedding_A": "a", ".lora_embedding_B": "b"}
"""The end of a tensor's name → which factor it is."""
_DTYPES = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class AdapterModule:
    """One module of an adapter that fits the model: the target, and where its factors are in the file."""

    target: Target
    rank: int
    scaling: float
    a: str
    """The name of A, [rank, inputs]."""
    b: str
    """The name of B, [outputs, rank]."""


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter whose tensors all fit a model. They are not in memory yet."""

    folder: Path
    modules: tuple[AdapterModule, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """What an adapter adds to consecutive rows of a weight: B A."""

    target: Target
    a: Tensor
    """fp32 [rank, inputs]."""
    b: Tensor
    """fp32 [outputs, rank], scaled."""

    def delta(self) -> Tensor:
        """fp32, of the shape of the rows of the weight."""
        product = self.b @ self.a
        return product.t() if self.target.layer == EMBEDDING else product


def read_adapter(folder: Path, config: LmConfig, headers: Mapping[str, TensorHeader]) -> AdapterFile:
    """Reads the configuration of an adapter and the header of its tensors. `headers` are those of the model's tensors.

    Raises FailedPrecondition, which names the first tensor that does not fit the model.
    """
    settings, path = read_adapter_config(folder), folder / WEIGHTS_FILE
    shapes = _read_shapes(path)
    if not shapes:
        raise invalid_adapter(path, "has no tensors")
    pairs: dict[str, dict[str, str]] = {}
    for name in shapes:
        suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), None)
        if suffix is None:
            raise invalid_adapter(path, f"{name} is no factor of a LoRA adapter; only lora_A and lora_B are supported")
        module = name.removesuffix(suffix).removeprefix(_PREFIX)
        pairs.setdefault(module, {})[_SUFFIXES[suffix]] = name
    modules = [_check_module(module, names, shapes, settings, config, headers, path) for module, names in pairs.items()]
    return AdapterFile(folder, tuple(modules))


def load_adapter(file: AdapterFile) -> list[LowRank]:
    """Raises FailedPrecondition if a value is not finite, or if the file was replaced by one with other shapes."""
    path = file.folder / WEIGHTS_FILE
    with _opened(path) as tensors:
        return [_load_module(module, tensors, path) for module in file.modules]


def adapter_digest(folder: Path) -> str:
    """16 hexadecimal digits that change with the content of an adapter's files."""
    digest = hashlib.blake2b(digest_size=8)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _check_module(
    module: str,
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    settings: AdapterConfig,
    config: LmConfig,
    headers: Mapping[str, TensorHeader],
    path: Path,
) -> AdapterModule:
    first = next(iter(names.values()))
    if len(names) < 2:
        raise invalid_adapter(path, f"{first} has no counterpart; a module needs both lora_A and lora_B")
    target = find_target(module, config, headers)
    if target is None or (target.layer == EMBEDDING) != ("lora_embedding" in first):
        raise invalid_adapter(path, f"{first} belongs to a module that this model's language model does not have")
    if not settings.is_target(module):
        raise invalid_adapter(path, f"{first} is not among the target_modules of {CONFIG_FILE}")
    rank = settings.rank_of(module)
    for name, expected in ((names["a"], (rank, target.inputs)), (names["b"], (target.outputs, rank))):
        if shapes[name] != expected:
            problem = f"{name} has the shape {list(shapes[name])}; this model and {CONFIG_FILE} expect {list(expected)}"
            raise invalid_adapter(path, problem)
    return AdapterModule(target, rank, settings.scaling_of(module), names["a"], names["b"])


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    shapes = {}
    with _opened(path) as tensors:
        for name in tensors.keys():  # noqa: SIM118 - it is no mapping.
            part = tensors.get_slice(name)
            if part.get_dtype() not in _DTYPES:
                raise invalid_adapter(path, f"{name} is of type {part.get_dtype()}; expected {', '.join(_DTYPES)}")
            shapes[name] = tuple(part.get_shape())
    return shapes


def _load_module(module: AdapterModule, tensors: Any, path: Path) -> LowRank:
    target, rank = module.target, module.rank
    a, b = (tensors.get_tensor(name).to(torch.float32) for name in (module.a, module.b))
    if a.shape != (rank, target.inputs) or b.shape != (target.outputs, rank):
        raise invalid_adapter(path, "the file was replaced during loading; retry")
    for name, tensor in ((module.a, a), (module.b, b)):
        if not tensor.abs().max() <= MAX_MAGNITUDE:  # Also rejects NaN.
            raise invalid_adapter(path, f"{name} has values that are not finite, or beyond ±{MAX_MAGNITUDE:g}")
    return LowRank(target, a, b * module.scaling)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        hint = "it has adapter_model.bin, a pickle; save it again with safe_serialization=True"
        if not (path.parent / "adapter_model.bin").is_file():
            hint = "expected an adapter as PEFT saves it"
        raise invalid_adapter(path, f"no such file; {hint}")
    try:
        with safe_open(path, "pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise invalid_adapter(path, f"is truncated or not a safetensors file ({error})") from error
