"""Loads an EnCodec model from local files in audiocraft's or transformers' format.

audiocraft's `compression_state_dict.bin` holds either the model (`best_state`, and `xp.cfg` as a YAML string) or, if
`export_pretrained_compression_model` wrote it, the name of a model (`pretrained: facebook/encodec_32khz`). A named
model is read from the Hugging Face cache; nothing is downloaded. See audiocraft 1.3.0, `models/loaders.py`.
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
from generation_service.models.musicgen.checkpoints.checkpoint import (
    COMPRESSION_FILE,
    invalid_checkpoint,
    parse_xp_config,
)
from generation_service.models.musicgen.codec.encodec import Encodec
from generation_service.models.musicgen.codec.encodec_config import (
    EncodecConfig,
    parse_audiocraft_config,
    parse_transformers_config,
)

TRANSFORMERS_CONFIG = "config.json"
TRANSFORMERS_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

_TRAINING_ONLY = (".inited", ".cluster_size", ".embed_avg")
"""Endings of codebook entries that only training needs."""


def load_encodec(path: Path, *, cache: Path | None = None) -> Encodec:
    """Loads from a `compression_state_dict.bin`, or from a folder with that file or with transformers' EnCodec files.

    `cache` is the Hugging Face cache in which `pretrained` names are looked up; the default is the user's. The codec is
    on the CPU in float32. Raises FailedPrecondition if the files are missing, truncated, of another kind of model, or
    use an unsupported setting.
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
        raise invalid_checkpoint(path, f"the file contains a {type(package).__name__}; {expected}")
    state, text = package.get("best_state"), package.get("xp.cfg")
    if not isinstance(state, Mapping) or not isinstance(text, str):
        raise invalid_checkpoint(path, f"the file contains {_summarize(package)}; {expected}, or pretrained")
    return _build(parse_audiocraft_config(parse_xp_config(text, path), path), state, path)


def _load_pretrained(name: str, file: Path, cache: Path | None) -> Encodec:
    try:
        config = try_to_load_from_cache(name, TRANSFORMERS_CONFIG, cache_dir=cache)
    except HFValidationError:
        problem = f"it names the codec {name!r}; expected the name of an EnCodec model on the Hugging Face hub"
        raise invalid_checkpoint(file, problem) from None
    if not isinstance(config, str):
        raise FailedPrecondition(
            f"{file}: it uses the pretrained codec {name!r}, which is not in the Hugging Face cache; "
            f"download it with: hf download {name}",
            reason="CHECKPOINT_MISSING",
            metadata={"file": str(file), "pretrained": name},
        )
    return _load_transformers(Path(config).parent)


def _load_transformers(folder: Path) -> Encodec:
    file = folder / TRANSFORMERS_CONFIG
    expected = "expected the configuration of transformers' EncodecModel"
    try:
        raw = json.loads(file.read_bytes())
    except ValueError as error:
        raise invalid_checkpoint(file, f"the file is not valid JSON ({error}); {expected}") from None
    if not isinstance(raw, dict):
        raise invalid_checkpoint(file, f"the file contains a {type(raw).__name__}; {expected}")
    config = parse_transformers_config(raw, file)
    for name in TRANSFORMERS_WEIGHTS:
        file = folder / name
        if file.is_file():
            state = _read_safetensors(file) if file.suffix == ".safetensors" else _unpickle(file)
            if not isinstance(state, Mapping):
                problem = f"the file contains a {type(state).__name__}; expected a dictionary of weights"
                raise invalid_checkpoint(file, problem)
            return _build(config, state, file)
    raise FailedPrecondition(
        f"{folder}: the folder has {TRANSFORMERS_CONFIG} but neither {' nor '.join(TRANSFORMERS_WEIGHTS)}",
        reason="CHECKPOINT_MISSING",
        metadata={"file": str(folder)},
    )


def _unpickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A foreign file can fail anywhere in the unpickler.
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'unexpected end of file'}"
        problem = f"can't be read as PyTorch weights; the file is truncated or of another format ({reason})"
        raise invalid_checkpoint(path, problem) from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        problem = f"can't be read as safetensors; the file is truncated or of another format ({error})"
        raise invalid_checkpoint(path, problem) from None


def _build(config: EncodecConfig, state: Mapping[str, Any], path: Path) -> Encodec:
    with torch.device("meta"):
        codec = Encodec(config)
    weights = _fold_weight_norm(_rename(state, path), path)
    expected = codec.state_dict()
    missing, unexpected = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or unexpected:
        lists = (("missing", missing), ("unexpected", unexpected))
        problem = "; ".join(f"{kind}: {_summarize(names)}" for kind, names in lists if names)
        raise invalid_checkpoint(path, f"the weights do not fit the configuration ({problem})")
    for name, weight in weights.items():
        if weight.shape != expected[name].shape:
            problem = f"{name} has the shape {list(weight.shape)}, expected {list(expected[name].shape)}"
            raise invalid_checkpoint(path, f"the weights do not fit the configuration ({problem})")
    codec.load_state_dict(weights, assign=True)
    return codec.requires_grad_(False).eval()


def _rename(state: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Translates audiocraft's names (`encoder.model.0.conv.conv.weight_g`) or transformers' into those of `Encodec`."""
    weights = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise invalid_checkpoint(path, f"{name} is a {type(value).__name__}; expected only tensors")
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
