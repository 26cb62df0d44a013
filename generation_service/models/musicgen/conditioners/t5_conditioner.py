"""Encodes a prompt for the language model: T5's encoder, followed by the projection in the checkpoint.

Source: audiocraft 1.3.0, `modules/conditioners.py`, T5Conditioner. Every prompt is encoded alone, without padding, so
its encoding does not depend on the other requests.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint, invalid_checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from service_runtime.optional_deps import install_extra_command


class TextConditioner:
    """Encodes prompts on the device that holds its weights."""

    def __init__(self, checkpoint: Checkpoint, config: LmConfig, device: str = "cpu") -> None:
        """Loads T5 from the Hugging Face cache. Raises FailedPrecondition if it is missing or does not fit."""
        prefix = f"condition_provider.conditioners.{config.condition}.output_proj."
        state = checkpoint.map_tensors()
        try:
            self._weight = state[f"{prefix}weight"].to(device, torch.float32, copy=True)  # [dim, d_model]
            self._bias = state[f"{prefix}bias"].to(device, torch.float32, copy=True)  # [dim]
        except KeyError as error:
            raise invalid_checkpoint(
                checkpoint.path, f"best_state has no {error.args[0]}; expected a MusicGen model"
            ) from error
        self._tokenizer, self._encoder = _load_t5(config.t5_name)
        self._encoder.to(device)
        expected = (config.dim, self._encoder.config.d_model)
        if tuple(self._weight.shape) != expected:
            raise invalid_checkpoint(
                checkpoint.path, f"{prefix}weight is {list(self._weight.shape)}; expected {list(expected)}"
            )

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor | None:
        """The encoded prompt, [T, dim], or None if the prompt is empty, which means no conditioning."""
        if not prompt:
            return None
        tokens = self._tokenizer([prompt], return_tensors="pt").to(self._weight.device)
        hidden = self._encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        return F.linear(hidden[0], self._weight, self._bias)


def _load_t5(name: str) -> tuple[Any, Any]:
    """Tokenizer and encoder, from local files only."""
    try:
        from transformers import T5EncoderModel, T5Tokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise FailedPrecondition(
            f"MusicGen needs the package transformers for its text encoder, but it is not installed ({error}); "
            f"install it with: {install_extra_command('musicgen')}",
            reason="TRANSFORMERS_MISSING",
        ) from error
    library_logging: Any = logging  # By default it prints progress bars, which would end up in the server's log.
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    try:
        tokenizer = T5Tokenizer.from_pretrained(name, local_files_only=True)
        encoder: Any = T5EncoderModel.from_pretrained(name, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise FailedPrecondition(
            f"the text encoder {name!r} is not in the Hugging Face cache; download it with: hf download {name}",
            reason="TEXT_ENCODER_MISSING",
            metadata={"text_encoder": name},
        ) from error
    return tokenizer, encoder.eval()
