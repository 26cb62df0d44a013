"""MERT, the model of music whose features MusicGen-Style reads (Li et al. 2023).

`m-a-p/MERT-v1-95M` comes with code of its own, which is never run: without its optional constant-Q features, which
this model doesn't use, its network is HuBERT's, and transformers has that. Only its weights are read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint
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
        self._network = _load_hubert(Path(found)).to(device)
        self._device = torch.device(device)

    @torch.inference_mode()
    def extract(self, samples: Tensor, sample_rate_hz: int) -> Tensor:
        """Mono samples, [n] → features, [T, 768], on the device."""
        audio = resample_sinc(samples.to(self._device), sample_rate_hz, RATE_HZ)
        features: Tensor = self._network(audio[None]).last_hidden_state[0]
        return features


def _load_hubert(file: Path) -> Any:
    from transformers import HubertConfig, HubertModel
    from transformers.utils import logging

    library_logging: Any = logging
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    fields = json.loads(file.read_bytes())
    for name, expected in _HUBERT.items():
        if fields.get(name, expected) != expected:
            raise invalid_checkpoint(file, f"{name} is {fields[name]!r}; only {expected!r} is supported")
    config = HubertConfig.from_dict(fields)
    if config.hidden_size != FEATURES:
        raise invalid_checkpoint(file, f"hidden_size is {config.hidden_size}; expected {FEATURES}")
    loader: Any = HubertModel
    try:
        network, report = loader.from_pretrained(
            file.parent, config=config, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        cause = str(error).partition("\n")[0][:200]
        raise invalid_checkpoint(file, f"its weights can't be read ({cause}); download {NAME} again") from error
    missing = sorted(set(report["missing_keys"]) - {_TRAINING_ONLY})
    if missing:
        raise invalid_checkpoint(file, f"its weights have no {missing[0]}; download {NAME} again")
    return network.requires_grad_(False).eval()
