"""MERT, the model of music whose features MusicGen-Style reads (Li et al. 2023).

`m-a-p/MERT-v1-95M` comes with code of its own, which is never run: without its optional constant-Q features, which
this model doesn't use, its network is HuBERT's, and transformers has that. Only its weights are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint
from generation_service.models.musicgen.checkpoints.hub_networks import open_transformers_folder
from generation_service.models.musicgen.conditioners.sinc_resampling import resample_sinc

NAME = "m-a-p/MERT-v1-95M"
FEATURES = 768
RATE_HZ = 24_000
_HUBERT = {"feature_extractor_cqt": False, "deepnorm": False, "attention_relax": -1.0}
"""The settings with which MERT's network is HuBERT's, which are those of `NAME`."""
_TRAINING_ONLY = "masked_spec_embed"


class Mert:
    """Extracts features at about 75 Hz. Any thread can call it."""

    def __init__(self, device: str | torch.device = "cpu", *, cache: Path | None = None) -> None:
        """Loads it from the Hugging Face cache. Raises FailedPrecondition if it is missing or of another kind."""
        found = try_to_load_from_cache(NAME, "config.json", cache_dir=cache)
        if not isinstance(found, str):
            raise FailedPrecondition(
                f"MusicGen-Style needs {NAME!r}, which is not in the Hugging Face cache; "
                f"download it with: hf download {NAME}",
                reason="STYLE_ENCODER_MISSING",
                metadata={"style_encoder": NAME},
            )
        self._network = _load_hubert(Path(found).parent).to(device)
        self._device = torch.device(device)

    @torch.inference_mode()
    def extract(self, samples: Tensor, sample_rate_hz: int) -> Tensor:
        """Mono samples, [n] → features, [T, 768], on the device."""
        audio = resample_sinc(samples.to(self._device), sample_rate_hz, RATE_HZ)
        features: Tensor = self._network(audio[None]).last_hidden_state[0]
        return features


def _load_hubert(folder: Path) -> Any:
    from transformers import HubertConfig, HubertModel

    stored = open_transformers_folder(folder, "the configuration of MERT")
    fields = dict(stored.config)
    for name, expected in _HUBERT.items():
        if fields.get(name, expected) != expected:
            raise invalid_checkpoint(stored.path, f"{name} is {fields[name]!r}; only {expected!r} is supported")
    network: Any = HubertModel
    with torch.device("meta"):
        network = network(HubertConfig.from_dict(fields)).eval()
    tensors = {_rename(name): tensor for name, tensor in stored.map_tensors().items()}
    weights = {}
    for name, expected_tensor in network.state_dict().items():
        shape, tensor = tuple(expected_tensor.shape), tensors.get(name)
        if name == _TRAINING_ONLY:
            tensor = torch.zeros(shape)
        if tensor is None or tuple(tensor.shape) != shape:
            found = "is missing" if tensor is None else f"has the shape {list(tensor.shape)}"
            raise invalid_checkpoint(stored.path, f"{name} {found}; its configuration expects {list(shape)}")
        weights[name] = tensor.to(torch.float32, copy=True)
    network.load_state_dict(weights, assign=True)
    if network.config.hidden_size != FEATURES:
        raise invalid_checkpoint(stored.path, f"hidden_size is {network.config.hidden_size}; expected {FEATURES}")
    return network.requires_grad_(False)


def _rename(name: str) -> str:
    """torch's name since 2.1 of a weight-normed layer's parameter."""
    name = name.replace(".weight_g", ".parametrizations.weight.original0")
    return name.replace(".weight_v", ".parametrizations.weight.original1")
