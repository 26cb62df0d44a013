"""MusicGen's language model as plainly as it can be written: no batch, no cache, each step reads all from the start.

Our code generators are compared with it where audiocraft can't generate the same, as with several texts.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import LM_FILE
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.conditions import Condition, WindowConditions
from generation_service.models.musicgen.delay_pattern import Codes, DelayedCodes


class PlainLanguageModel:
    """Loaded from a folder in audiocraft's format."""

    def __init__(self, folder: Path) -> None:
        checkpoint = read_checkpoint(folder / LM_FILE)
        self.config = parse_lm_config(checkpoint)
        self._weights = {name: weight.float() for name, weight in checkpoint.map_tensors().items()}

    @torch.inference_mode()
    def generate(
        self, frames: int, conditions: WindowConditions, guidance_scale: float, known: Codes | None = None
    ) -> Codes:
        """Greedy codes of one window, [K, frames]. known: [K, n], those of the first frames."""
        codes = DelayedCodes(self.config.delays, frames, self.config.card, known)
        first = codes.prompt_frames
        while not codes.is_done:
            read = torch.from_numpy(codes.columns[:, : codes.step + 1])
            progress = min((codes.step - first) / (frames - first), 1.0)
            negative = self._logits(read, conditions.negative, conditions.prefix_positions)
            guided = negative.clone()
            for branch in conditions.branches:
                weight = branch.first_weight + (branch.last_weight - branch.first_weight) * progress
                logits = self._logits(read, branch.condition, conditions.prefix_positions)
                guided += guidance_scale * weight * (logits - negative)
            codes.append(guided.argmax(-1).numpy())
        return codes.select_frames(0, frames)

    def _logits(self, codes: Tensor, condition: Condition, prefix_positions: int) -> Tensor:
        """codes: [K, n] → [K, card] for the last of them."""
        config, weights = self.config, self._weights
        x = sum((weights[f"emb.{k}.weight"][codes[k]] for k in range(config.n_q)), torch.zeros(config.dim))
        if prefix_positions:
            prefix = condition.prefix
            x = torch.cat([torch.zeros(prefix_positions, config.dim) if prefix is None else prefix, x])
        x = x + self._positions(len(x))
        for index in range(config.num_layers):
            layer = f"transformer.layers.{index}."
            normed = self._norm(f"{layer}norm1", x)
            x = x + self._attend(f"{layer}self_attn", normed, normed, is_causal=True)
            if condition.text is not None:
                normed = self._norm(f"{layer}norm_cross", x)
                x = x + self._attend(f"{layer}cross_attention", normed, condition.text)
            hidden = F.gelu(self._norm(f"{layer}norm2", x) @ weights[f"{layer}linear1.weight"].T)
            x = x + hidden @ weights[f"{layer}linear2.weight"].T
        last = self._norm("out_norm", x)[-1]
        return torch.stack([weights[f"linears.{k}.weight"] @ last for k in range(config.n_q)])

    def _attend(self, name: str, x: Tensor, read: Tensor, *, is_causal: bool = False) -> Tensor:
        """x: [n, dim] attends to read: [m, dim]."""
        projections = self._weights[f"{name}.in_proj_weight"].chunk(3)
        queries, keys, values = (
            (source @ weight.T).view(len(source), self.config.num_heads, -1).transpose(0, 1)
            for source, weight in zip((x, read, read), projections, strict=True)
        )  # each [H, n or m, D]
        scores = queries @ keys.transpose(1, 2) * self.config.head_dim**-0.5
        if is_causal:
            scores = scores.masked_fill(torch.ones(len(x), len(x), dtype=torch.bool).triu(1), -torch.inf)
        attended = (scores.softmax(-1) @ values).transpose(0, 1).reshape(len(x), -1)
        return attended @ self._weights[f"{name}.out_proj.weight"].T

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _positions(self, count: int) -> Tensor:
        half = self.config.dim // 2
        phase = torch.arange(count)[:, None] / self.config.max_period ** (torch.arange(half) / (half - 1))
        return torch.cat([phase.cos(), phase.sin()], -1)
