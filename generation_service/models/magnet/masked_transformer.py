"""MAGNeT's transformer: it reads all codes of a segment at once, and predicts those of one codebook.

Source: audiocraft 1.3.0, `models/lm_magnet.py` and `modules/transformer.py` (Ziv et al. 2024, "Masked Audio Generation
using a Single Non-Autoregressive Transformer"). It has MusicGen's layers, but every frame attends to later ones, too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.magnet.magnet_config import MagnetConfig
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.lm.decoder_layers import (
    BuildLinear,
    DecoderLayer,
    read_decoder,
    sinusoidal_embeddings,
)
from generation_service.models.musicgen.sampling import CFG_ROWS


class MaskedTransformer:
    """The weights are fixed when the model is loaded, and it has no other state."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: MagnetConfig,
        build_linear: BuildLinear,
        device: torch.device,
        attention_dtype: torch.dtype = torch.float32,
    ) -> None:
        """Raises FailedPrecondition if weights are missing or do not have the shape that the configuration gives."""
        self.config = config
        self.device = device
        self._dtype = attention_dtype
        self._weights = read_decoder(checkpoint, config.lm, device, build_linear)

    @torch.inference_mode()
    def predict(self, codes: Tensor, text: Tensor | None, negative: Tensor | None, stage: int) -> Tensor:
        """The logits of the codebook `stage`, conditional and negative: fp32 [2, T, card].

        codes: int64 [K, T]; `card` stands for a masked code. text, negative: what each branch is conditioned on,
        [tokens, dim], or None for no text. Without either, the branches are the same.
        """
        weights, config = self._weights, self.config.lm
        frames = codes.shape[1]
        branches = 1 if text is None and negative is None else CFG_ROWS
        x = F.embedding_bag(codes.t() + weights.offsets, weights.embedding, mode="sum")  # [T, dim]
        x = x + sinusoidal_embeddings(frames, config).to(self.device)
        x = x.repeat(branches, 1)  # [2 T, dim]: conditional, then negative
        mask = self._attention_mask(frames, stage)
        for layer in weights.layers:
            qkv = layer.qkv(layer.norm_self(x)).view(branches, frames, 3, config.num_heads, config.head_dim)
            queries, keys, values = qkv.to(self._dtype).permute(2, 0, 3, 1, 4)  # each [2, H, T, D]
            attended = F.scaled_dot_product_attention(queries, keys, values, mask)
            x = layer.out.add_residual(attended.transpose(1, 2).reshape(-1, config.dim), x)
            for rows, condition in zip(x.view(branches, frames, -1), (text, negative), strict=False):
                # Without a text, cross-attention adds exactly zero: no bias, all-zero condition.
                if condition is not None:
                    self._attend_to(condition, rows, layer)
            x = layer.down.add_residual(layer.up.gelu(layer.norm_ff(x)), x)
        logits = weights.heads(weights.out_norm(x)).view(branches, frames, config.n_q, config.card)
        return logits[:, :, stage].float().expand(CFG_ROWS, -1, -1)

    def _attend_to(self, text: Tensor, rows: Tensor, layer: DecoderLayer) -> None:
        """Adds what cross-attention reads in the text, [tokens, dim], to the rows, [T, dim]."""
        config = self.config.lm
        queries = layer.cross_q(layer.norm_cross(rows)).view(-1, config.num_heads, config.head_dim)
        keys, values = layer.cross_kv(text).view(-1, 2, config.num_heads, config.head_dim).unbind(1)
        queries, keys, values = (each.transpose(0, 1) for each in (queries, keys, values))  # each [H, n, D]
        attended = F.scaled_dot_product_attention(queries, keys, values)
        rows.copy_(layer.cross_out.add_residual(attended.transpose(0, 1).reshape(-1, config.dim), rows))

    def _attention_mask(self, frames: int, stage: int) -> Tensor | None:
        """Which frames each attends to: bool [T, T], or None for all. The first codebook, which says most, sees all."""
        context = self.config.subcodes_context
        if stage == 0 or context is None:
            return None
        position = torch.arange(frames, device=self.device)
        return (position[:, None] - position).abs() <= context
