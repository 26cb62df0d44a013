"""transformers' MusicGen as `benchmarks.engine` runs it: its language model, with the checkpoint's weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.delay_pattern import Codes, DelayedCodes

TRANSFORMERS = "transformers"
_GUIDANCE, _TOP_K = 3.0, 250
PROMPT_TOKENS = 12
_NAMES = {
    "emb.": "model.decoder.embed_tokens.",
    "linears.": "lm_heads.",
    "out_norm.": "model.decoder.layer_norm.",
    "transformer.layers.": "model.decoder.layers.",
    "cross_attention.": "encoder_attn.",
    "linear1.": "fc1.",
    "linear2.": "fc2.",
    "norm1.": "self_attn_layer_norm.",
    "norm2.": "final_layer_norm.",
    "norm_cross.": "encoder_attn_layer_norm.",
}
"""audiocraft's name parts → transformers'. Source: `convert_musicgen_transformers.py` in transformers' repository."""


class TransformersRunner:
    """Does per code what `generate` does: the forward pass with its growing cache, guidance, top-k and sampling."""

    name = TRANSFORMERS

    def __init__(self, checkpoint: Checkpoint, config: LmConfig, device: str) -> None:
        """Raises ImportError if transformers is not installed or has no MusicGen."""
        from transformers import MusicgenForCausalLM
        from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

        self.config, self.device = config, device
        settings = MusicgenDecoderConfig(
            vocab_size=config.card,
            hidden_size=config.dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            ffn_dim=config.hidden_dim,
            num_codebooks=config.n_q,
            pad_token_id=config.card,
            bos_token_id=config.card,
        )
        settings._attn_implementation = "sdpa"
        with torch.device("meta"):
            lm: Any = MusicgenForCausalLM(settings)
        lm.load_state_dict(_convert_names(checkpoint), strict=True, assign=True)
        positions = lm.model.decoder.embed_positions  # The checkpoint does not contain them.
        positions.weights = positions.get_embedding(positions.num_positions, positions.embedding_dim)
        self.lm = lm.eval().to(device)
        self._cache: Any = None

    def start(self, batch: int, position: int) -> Callable[[], object]:
        text = torch.randn(batch, PROMPT_TOKENS, self.config.dim, device=self.device, dtype=self.lm.dtype)
        codes = torch.zeros(batch, self.config.n_q, dtype=torch.int64, device=self.device)
        self._reset(text)
        if position:
            self._forward(codes)
            for layer in self._cache.self_attention_cache.layers:
                shape = (*layer.keys.shape[:2], position, layer.keys.shape[3])
                layer.keys = torch.randn(shape, device=self.device, dtype=self.lm.dtype)
                layer.values = torch.randn(shape, device=self.device, dtype=self.lm.dtype)

        def step() -> object:
            values, candidates = self._forward(codes).topk(min(_TOP_K, self.config.card))
            chosen = torch.multinomial(values.softmax(-1).flatten(0, 1), 1).view(batch, -1, 1)
            return candidates.gather(-1, chosen)

        return step

    def stop(self) -> None:
        self._cache = self._text = None

    def greedy(self, text: Tensor, frames: int) -> Codes:
        """text: [T, dim] → codes: [K, frames]."""
        codes = DelayedCodes(self.config.delays, frames, self.config.card)
        self._reset(text[None].to(self.device))
        while not codes.is_done:
            newest = torch.from_numpy(codes.newest)[None].to(self.device)
            codes.append(self._forward(newest)[0].argmax(-1).cpu().numpy())
        self.stop()
        return codes.select_frames(0, frames)

    def _reset(self, text: Tensor) -> None:
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        self._text = torch.cat([text, torch.zeros_like(text)])
        self._cache = EncoderDecoderCache(DynamicCache(config=self.lm.config), DynamicCache(config=self.lm.config))

    @torch.inference_mode()
    def _forward(self, codes: Tensor) -> Tensor:
        """codes: int64 [B, K] → logits with guidance: [B, K, card]."""
        out = self.lm(
            input_ids=codes.repeat(2, 1).view(-1, 1),
            encoder_hidden_states=self._text,
            past_key_values=self._cache,
            use_cache=True,
        )
        conditional, unconditional = out.logits[:, -1].view(2, len(codes), self.config.n_q, -1)
        guided: Tensor = unconditional + (conditional - unconditional) * _GUIDANCE
        return guided


def _convert_names(checkpoint: Checkpoint) -> dict[str, Tensor]:
    weights = {}
    for name, tensor in checkpoint.map_tensors().items():
        if name.startswith("condition_provider."):
            continue  # Belongs to the text encoder.
        for ours, theirs in _NAMES.items():
            name = name.replace(ours, theirs)
        if name.endswith("in_proj_weight"):
            for part, rows in zip("qkv", tensor.float().chunk(3), strict=True):
                weights[name.replace("in_proj_", f"{part}_proj.")] = rows
        else:
            weights[name] = tensor.float()
    return weights
