"""EnCodec's LSTM. Source: audiocraft 1.3.0, `modules/lstm.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualLstm(nn.Module):
    """LSTM layers with a shortcut around them all: [B, C, n] → [B, C, n]."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x.permute(2, 0, 1).contiguous())  # [n, B, C]
        return torch.add(y.permute(1, 2, 0), x)
