"""Load an EnCodec model from a local file or folder: audiocraft's format, or transformers'.

audiocraft's `compression_state_dict.bin` holds either the model (`best_state`, and `xp.cfg` as a YAML string) or, as
`export_pretrained_compression_model` writes it, the name of one (`pretrained: facebook/encodec_32khz`) which is then
taken from the Hugging Face cache; nothing is downloaded here. See audiocraft 1.3.0, `models/loaders.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.audiocraft_file import COMPRESSION_FILE, parse_config, refuse
from generation_service.models.musicgen.codec.encodec import Encodec
from generation_service.models.musicgen.codec.encodec_config import (
    EncodecConfig,
    config_from_audiocraft,
    config_from_transformers,
)
from generation_service.models.musicgen.codec.streaming_layers import Upsample

TRANSFORMERS_CONFIG = "config.json"
TRANSFORMERS_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

_TRAINING_ONLY = (".inited", ".cluster_size", ".embed_avg")
"""What codebooks carry to go on training."""


def load_encodec(path: Path, *, cache: Path | None = None) -> Encodec:
    """The codec of a `compression_state_dict.bin`, or of a folder that holds one or transformers' EnCodec files.

    `cache` is the Hugging Face cache to look up `pretrained` names in (default: the usual one). The codec is on the
    CPU, float32. Raises FailedPrecondition for what is missing, truncated, foreign or unsupported.
    """
    if path.is_dir():
        if (path / COMPRESSION_FILE).is_file():
            path = path / COMPRESSION_FILE
        elif (path / TRANSFORMERS_CONFIG).is_file():
            return _load_transformers(path)
    if not path.is_file():
        raise FailedPrecondition(
            f"{path}: expected audiocraft's {COMPRESSION_FILE}, or a folder with that file or with transformers' "
            f"{TRANSFORMERS_CONFIG} and {' or '.join(TRANSFORMERS_WEIGHTS)}",
            reason="CHECKPOINT_MISSING",
            metadata={"file": str(path)},
        )
    package = _unpickle(path)
    if isinstance(package, Mapping) and isinstance(package.get("pretrained"), str):
        return _load_pretrained(package["pretrained"], path, cache)
    expected = "expected audiocraft's dictionary of best_state and xp.cfg"
    if not isinstance(package, Mapping):
        raise refuse(path, f"holds a {type(package).__name__}; {expected}")
    state, text = package.get("best_state"), package.get("xp.cfg")
    if not isinstance(state, Mapping) or not isinstance(text, str):
        raise refuse(path, f"holds {_some(package)}; {expected}, or pretrained")
    return _build(config_from_audiocraft(parse_config(text, path), path), state, path)


def _load_pretrained(name: str, file: Path, cache: Path | None) -> Encodec:
    try:
        config = try_to_load_from_cache(name, TRANSFORMERS_CONFIG, cache_dir=cache)
    except HFValidationError:
        raise refuse(file, f"its codec is {name!r}; expected the name of an EnCodec model on the hub") from None
    if not isinstance(config, str):
        raise FailedPrecondition(
            f"{file}: its codec is the pretrained model {name!r}, which is not in the Hugging Face cache; "
            f"fetch it once: hf download {name}",
            reason="CHECKPOINT_MISSING",
            metadata={"file": str(file), "pretrained": name},
        )
    return _load_transformers(Path(config).parent)


def _load_transformers(folder: Path) -> Encodec:
    file = folder / TRANSFORMERS_CONFIG
    try:
        raw = json.loads(file.read_bytes())
    except ValueError as error:
        raise refuse(file, f"is no JSON ({error}); expected the configuration of transformers' EncodecModel") from None
    if not isinstance(raw, dict):
        raise refuse(file, f"holds a {type(raw).__name__}; expected the configuration of transformers' EncodecModel")
    config = config_from_transformers(raw, file)
    for name in TRANSFORMERS_WEIGHTS:
        file = folder / name
        if file.is_file():
            state = _read_safetensors(file) if file.suffix == ".safetensors" else _unpickle(file)
            if not isinstance(state, Mapping):
                raise refuse(file, f"holds a {type(state).__name__}; expected a dictionary of weights")
            return _build(config, state, file)
    raise FailedPrecondition(
        f"{folder}: has {TRANSFORMERS_CONFIG} but neither {' nor '.join(TRANSFORMERS_WEIGHTS)}",
        reason="CHECKPOINT_MISSING",
        metadata={"file": str(folder)},
    )


def _unpickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A foreign file can fail anywhere in the unpickler.
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'ends too early'}"
        raise refuse(
            path, f"can't be read as a PyTorch file of plain weights, it is truncated or something else ({reason})"
        ) from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise refuse(path, f"can't be read as safetensors, it is truncated or something else ({error})") from None


def _build(config: EncodecConfig, state: Mapping[str, Any], path: Path) -> Encodec:
    with torch.device("meta"):
        codec = Encodec(config)
    weights = _fold_weight_norm(_rename(state, path), path)
    for name, module in codec.named_modules():
        if isinstance(module, Upsample) and (weight := weights.get(f"{name}.weight")) is not None:
            if weight.dim() != 3 or weight.shape[2] != 2 * module.stride:
                raise refuse(path, f"{name}.weight is {list(weight.shape)}; expected a kernel of {2 * module.stride}")
            weights[f"{name}.weight"] = Upsample.pair_weights(weight)
    wanted = codec.state_dict()
    missing, foreign = sorted(set(wanted) - set(weights)), sorted(set(weights) - set(wanted))
    if missing or foreign:
        lists = [f"{word} {_some(names)}" for word, names in (("lacks", missing), ("has besides", foreign)) if names]
        raise refuse(path, f"does not fit its configuration: it {' and '.join(lists)}")
    for name, weight in weights.items():
        if weight.shape != wanted[name].shape:
            found, expected = list(weight.shape), list(wanted[name].shape)
            raise refuse(path, f"does not fit its configuration: {name} is {found}, expected {expected}")
    codec.load_state_dict(weights, assign=True)
    return codec.requires_grad_(False).eval()


def _rename(state: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The names of audiocraft (`encoder.model.0.conv.conv.weight_g`) or transformers to those of our modules."""
    weights = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise refuse(path, f"{name} is a {type(value).__name__}; expected weights only")
        if name.endswith(_TRAINING_ONLY):
            continue
        name = re.sub(r"^(encoder|decoder)\.(model|layers)\.", r"\1.", name)
        name = re.sub(r"^quantizer\.(?:vq\.)?layers\.(\d+)\._?codebook\.embed$", r"quantizer.codebooks.\1", name)
        name = re.sub(r"\.(conv\.conv|convtr\.convtr|conv)\.(weight|bias|parametrizations)", r".\2", name)
        name = name.replace(".parametrizations.weight.original0", ".weight_g")
        name = name.replace(".parametrizations.weight.original1", ".weight_v")
        weights[name] = value.to(torch.float32)
    return weights


def _fold_weight_norm(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """w = g v / |v|, the norm over all but the first dimension (Salimans & Kingma 2016, equation 2)."""
    folded = {name: weight for name, weight in weights.items() if not name.endswith((".weight_g", ".weight_v"))}
    for name, v in weights.items():
        if name.endswith(".weight_v"):
            g = weights.get(f"{name[:-1]}g")
            if g is None or v.dim() != 3 or g.shape != (v.shape[0], 1, 1):
                raise refuse(path, f"{name} has no weight_g that fits it; expected weight norm's two parts")
            folded[name.removesuffix("_v")] = torch._weight_norm(v, g, 0)
    return folded


def _some(names: Any) -> str:
    """The first few names, and how many more."""
    names = [str(name)[:80] for name in names]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "nothing"
