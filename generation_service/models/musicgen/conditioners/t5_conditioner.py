"""From a prompt to what the language model attends to: T5's encoder, then the checkpoint's projection.

Source: audiocraft 1.3.0, `modules/conditioners.py`, T5Conditioner. A prompt is encoded by itself, never padded to the
length of another, so it means the same in any company.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.audiocraft_file import Checkpoint, refuse
from generation_service.models.musicgen.checkpoints.config import LmConfig
from service_runtime.optional_deps import install_extra_command


class TextConditioner:
    """Encodes prompts on the device that its weights are on."""

    def __init__(self, checkpoint: Checkpoint, config: LmConfig, device: str = "cpu") -> None:
        """Finds T5 in the Hugging Face cache; raises FailedPrecondition where it is not, or does not fit."""
        prefix = f"condition_provider.conditioners.{config.condition}.output_proj."
        state = checkpoint.state()
        try:
            self._weight = state[f"{prefix}weight"].to(device, torch.float32, copy=True)  # [dim, d_model]
            self._bias = state[f"{prefix}bias"].to(device, torch.float32, copy=True)  # [dim]
        except KeyError as error:
            raise refuse(checkpoint.path, f"best_state has no {error.args[0]}; expected a MusicGen model") from error
        self._tokenizer, self._encoder = _load_t5(config.t5_name)
        self._encoder.to(device)
        expected = (config.dim, self._encoder.config.d_model)
        if tuple(self._weight.shape) != expected:
            raise refuse(checkpoint.path, f"{prefix}weight is {list(self._weight.shape)}; expected {list(expected)}")

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor | None:
        """[T, dim]; None where the prompt is empty, which conditions nothing."""
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
            f"MusicGen needs transformers for its text encoder, which is not installed ({error}); "
            f"install it with {install_extra_command('musicgen')}",
            reason="TRANSFORMERS_MISSING",
        ) from error
    quiet: Any = logging  # Otherwise it draws progress bars into the server's log.
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    try:
        tokenizer = T5Tokenizer.from_pretrained(name, local_files_only=True)
        encoder: Any = T5EncoderModel.from_pretrained(name, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise FailedPrecondition(
            f"the text encoder {name!r} is not in the Hugging Face cache; hf download {name}",
            reason="TEXT_ENCODER_MISSING",
            metadata={"text_encoder": name},
        ) from error
    return tokenizer, encoder.eval()
