"""Checks the headers of a language model's tensors against its configuration, before any of them is read."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint, StoredNetwork, invalid_checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig

WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_CONDITIONERS = "condition_provider."
"""Where the conditioners keep their tensors, which they check themselves, but for the last projections."""


def check_lm_weights(checkpoint: Checkpoint, config: LmConfig) -> None:
    """Raises FailedPrecondition that names the first tensor that is missing, is not expected, or does not fit."""
    expected = set()
    for name, shape in _expected_shapes(config):
        check_tensor(checkpoint, name, shape)
        expected.add(name)
    for name in checkpoint.headers:
        if name not in expected and not name.startswith(_CONDITIONERS):
            problem = f"its configuration does not have the tensor {_stored_name(checkpoint, name)}"
            raise invalid_checkpoint(checkpoint.path, f"{problem}; expected {config.num_layers} layers of MusicGen")


def check_tensor(stored: StoredNetwork, name: str, shape: tuple[int | None, ...]) -> None:
    """Raises FailedPrecondition if a tensor is missing, or has another shape, or a dtype that weights do not have.

    None in a shape stands for any size.
    """
    header = stored.headers.get(name)
    if header is None:
        raise invalid_checkpoint(stored.path, f"the weights have no {name}; expected a MusicGen language model")
    if len(header.shape) != len(shape) or any(
        size is not None and size != found for size, found in zip(shape, header.shape, strict=True)
    ):
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        problem = (
            f"{_stored_name(stored, name)} has the shape {list(header.shape)}; its configuration expects [{sizes}]"
        )
        raise invalid_checkpoint(stored.path, problem)
    if header.dtype not in WEIGHT_DTYPES:
        dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in WEIGHT_DTYPES)
        problem = f"{_stored_name(stored, name)} has the dtype {str(header.dtype).removeprefix('torch.')}"
        raise invalid_checkpoint(stored.path, f"{problem}; expected {dtypes}")


def _expected_shapes(config: LmConfig) -> Iterator[tuple[str, tuple[int | None, ...]]]:
    """One at a time, so that a configuration of a million layers ends at the first that is missing."""
    dim, hidden, card = config.dim, config.hidden_dim, config.card
    for k in range(config.n_q):
        yield f"emb.{k}.weight", (card + 1, dim)
        yield f"linears.{k}.weight", (card, dim)
    for i in range(config.num_layers):
        prefix = f"transformer.layers.{i}."
        for norm in ("norm1", "norm2", "norm_cross")[: 2 + config.has_cross_attention]:
            yield f"{prefix}{norm}.weight", (dim,)
            yield f"{prefix}{norm}.bias", (dim,)
        for attention in ("self_attn", "cross_attention")[: 1 + config.has_cross_attention]:
            yield f"{prefix}{attention}.in_proj_weight", (3 * dim, dim)
            yield f"{prefix}{attention}.out_proj.weight", (dim, dim)
        yield f"{prefix}linear1.weight", (hidden, dim)
        yield f"{prefix}linear2.weight", (dim, hidden)
    yield "out_norm.weight", (dim,)
    yield "out_norm.bias", (dim,)
    projections: dict[str, int | None] = {config.condition: None}
    if config.melody is not None:
        projections[config.melody.name] = config.melody.chroma.n_chroma
    if config.style is not None:
        projections[config.style.name] = config.style.dim
    for conditioner, features in projections.items():
        yield f"{_CONDITIONERS}conditioners.{conditioner}.output_proj.weight", (dim, features)
        yield f"{_CONDITIONERS}conditioners.{conditioner}.output_proj.bias", (dim,)


def _stored_name(stored: StoredNetwork, name: str) -> str:
    return stored.stored_names.get(name, name)
