"""Builds an EnCodec model from local files in audiocraft's or transformers' format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generation_service.models.musicgen.checkpoints.audiocraft_checkpoint import read_audiocraft_codec
from generation_service.models.musicgen.checkpoints.checkpoint import (
    COMPRESSION_FILE,
    StoredNetwork,
    invalid_checkpoint,
    missing_checkpoint,
)
from generation_service.models.musicgen.checkpoints.hub_networks import (
    CONFIG_FILE,
    PICKLED_WEIGHTS_FILE,
    open_transformers_folder,
)
from generation_service.models.musicgen.checkpoints.safetensors_file import WEIGHTS_FILE
from generation_service.models.musicgen.codec.encodec import Encodec
from generation_service.models.musicgen.codec.encodec_config import (
    EncodecConfig,
    parse_audiocraft_config,
    parse_transformers_config,
)

_TRAINING_ONLY = (".inited", ".cluster_size", ".embed_avg")
"""Endings of codebook entries that only training needs."""


def load_encodec(path: Path, *, cache: Path | None = None) -> Encodec:
    """Loads from a `compression_state_dict.bin`, or from a folder with that file or with transformers' EnCodec files.

    `cache` is the Hugging Face cache in which a codec that is only named is looked up; the default is the user's.
    Raises FailedPrecondition like `build_encodec`, or if files are missing, truncated or unsafe.
    """
    if path.is_dir():
        if not (path / COMPRESSION_FILE).is_file() and (path / CONFIG_FILE).is_file():
            return build_encodec(open_transformers_folder(path, "the configuration of transformers' EncodecModel"))
        path = path / COMPRESSION_FILE
    if not path.is_file():
        raise missing_checkpoint(
            path,
            f"expected audiocraft's {COMPRESSION_FILE}, or a folder with that file or with transformers' "
            f"{CONFIG_FILE} and {WEIGHTS_FILE} or {PICKLED_WEIGHTS_FILE}",
        )
    return build_encodec(read_audiocraft_codec(path, cache))


def build_encodec(stored: StoredNetwork) -> Encodec:
    """Reads the weights. The codec is on the CPU in float32. Raises FailedPrecondition like `check_encodec`."""
    with torch.device("meta"):
        codec = Encodec(check_encodec(stored))
    codec.load_state_dict(_fold_weight_norm(_rename(stored.map_tensors()), stored.path), assign=True)
    return codec.requires_grad_(False).eval()


def check_encodec(stored: StoredNetwork) -> EncodecConfig:
    """Returns the hyperparameters, after it has checked the headers of the tensors against them.

    Raises FailedPrecondition if the files are of another kind of model, use an unsupported setting, or do not fit.
    """
    config, path = parse_codec_config(stored), stored.path
    with torch.device("meta"):
        try:
            expected = Encodec(config).state_dict()
        except (RuntimeError, OverflowError, MemoryError) as error:  # Shapes whose product no tensor can have.
            raise invalid_checkpoint(path, "its configuration is that of a codec of impossible size") from error
        state = {name: torch.empty(header.shape, dtype=header.dtype) for name, header in stored.headers.items()}
    for name, tensor in state.items():
        if not tensor.dtype.is_floating_point and not name.endswith(_TRAINING_ONLY):
            raise invalid_checkpoint(path, f"{name} has the dtype {str(tensor.dtype).removeprefix('torch.')}")
    weights = _fold_weight_norm(_rename(state), path)
    missing, unexpected = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or unexpected:
        lists = (("missing", missing), ("unexpected", unexpected))
        problem = "; ".join(f"{kind}: {_summarize(names)}" for kind, names in lists if names)
        raise invalid_checkpoint(path, f"the weights do not fit the configuration ({problem})")
    for name, weight in weights.items():
        if weight.shape != expected[name].shape:
            problem = f"{name} has the shape {list(weight.shape)}, expected {list(expected[name].shape)}"
            raise invalid_checkpoint(path, f"the weights do not fit the configuration ({problem})")
    return config


def parse_codec_config(stored: StoredNetwork) -> EncodecConfig:
    """The hyperparameters. Raises FailedPrecondition if they are unsupported, or those of another kind of model."""
    parse = parse_transformers_config if "model_type" in stored.config else parse_audiocraft_config
    return parse(stored.config, stored.path)


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translates audiocraft's names (`encoder.model.0.conv.conv.weight_g`) or transformers' into those of `Encodec`."""
    weights = {}
    for name, value in state.items():
        if name.endswith(_TRAINING_ONLY):
            continue
        name = re.sub(r"^(encoder|decoder)\.(model|layers)\.", r"\1.", name)
        name = re.sub(r"^quantizer\.(?:vq\.)?layers\.(\d+)\._?codebook\.embed$", r"quantizer.codebooks.\1", name)
        name = re.sub(r"\.(conv\.conv|convtr\.convtr|conv)\.(weight|bias|parametrizations)", r".\2", name)
        name = name.replace(".parametrizations.weight.original0", ".weight_g")
        name = name.replace(".parametrizations.weight.original1", ".weight_v")
        weights[name] = value.to(torch.float32, copy=True)  # The file may be replaced.
    return weights


def _fold_weight_norm(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Computes w = g v / |v|, with the norm over all but the first dimension (Salimans & Kingma 2016, equation 2)."""
    folded = {name: weight for name, weight in weights.items() if not name.endswith((".weight_g", ".weight_v"))}
    for name, v in weights.items():
        if name.endswith(".weight_v"):
            g = weights.get(f"{name[:-1]}g")
            if g is None or v.dim() != 3 or g.shape != (v.shape[0], 1, 1):
                raise invalid_checkpoint(path, f"{name} has no matching weight_g; weight norm needs both")
            folded[name.removesuffix("_v")] = torch._weight_norm(v, g, 0)
    return folded


def _summarize(names: Any) -> str:
    """The first three names, and the number of the others."""
    names = [str(name)[:80] for name in names]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "nothing"
