"""The layers of EnCodec's encoder and decoder, each on its whole input: [B, C_in, n] → [B, C_out, m].

What they compute: audiocraft 1.3.0, `modules/conv.py`. Weight norm is folded when the weights are loaded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Elu(nn.Module):
    """Exponential linear unit."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x, self.alpha)


class Conv(nn.Module):
    """A convolution padded on both sides, so that its output has the length of its input divided by the stride."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, pad_mode: str, *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, kernel), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(channels_out), requires_grad=False)
        self.stride = stride
        self.dilation = dilation
        self.pad_mode = pad_mode
        self.span = (kernel - 1) * dilation + 1
        self.right = (self.span - stride) // 2
        self.left = self.span - stride - self.right

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(self._pad(x), self.weight, self.bias, self.stride, dilation=self.dilation)

    def _pad(self, x: Tensor) -> Tensor:
        """audiocraft's `pad1d`: an input shorter than its reflection is extended with zeros while it is padded."""
        right = self.right + -x.shape[-1] % self.stride  # Fills the last stride.
        missing = max(0, max(self.left, right) - x.shape[-1] + 1) if self.pad_mode == "reflect" else 0
        padded = F.pad(F.pad(x, (0, missing)), (self.left, right), self.pad_mode)
        return padded[..., : padded.shape[-1] - missing]


class Upsample(nn.Module):
    """A transposed convolution whose kernel is twice its stride, cut to `stride` outputs per input."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_in, channels_out, 2 * stride), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(channels_out), requires_grad=False)
        self.stride = stride
        self.right = stride // 2
        self.left = stride - self.right

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv_transpose1d(x, self.weight, self.bias, self.stride)
        return y[..., self.left : y.shape[-1] - self.right]
