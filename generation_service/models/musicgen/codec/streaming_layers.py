"""Convolutions of EnCodec that can stop and go on.

Every layer takes its input in pieces (`advance`) and keeps in a `Memory` what the next piece needs. It holds back the
output that still depends on input to come, so the pieces of output join to what the whole input at once would give, for
any weights and any pieces, and nothing is computed twice. Padding is applied where the stream truly begins and ends.

Source of what they compute: audiocraft 1.3.0, `modules/conv.py`. Weight norm is folded when weights are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GEMM_WEIGHTS = 1 << 22
"""oneDNN reorders a convolution's weights at every call; from about this many on, that costs more than the sums do."""

_FEW_ROWS = 4
"""Up to here MKL takes the weights on the left of a product at memory bandwidth, on the right at half of it or less."""


class Memory:
    """What one stream remembers between pieces: at most one tensor a layer, batch first."""

    def __init__(self) -> None:
        self.pending: dict[Layer, Tensor] = {}
        """Input of layers that have seen too little to begin."""
        self.tails: dict[Layer, Tensor] = {}
        """State of layers that have begun."""
        self.is_last = False
        """The piece being pushed ends the stream."""


class Layer(nn.Module):
    """A part of the network that works on pieces of a stream."""

    def advance(self, x: Tensor, memory: Memory) -> Tensor:
        """x: [B, C_in, n], n from 0 → [B, C_out, m], the output that no longer depends on input to come."""
        raise NotImplementedError


class Elu(Layer):
    """Exponential linear unit."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def advance(self, x: Tensor, memory: Memory) -> Tensor:
        return F.elu(x, self.alpha)


class Conv(Layer):
    """A convolution that keeps its input's length (divided by its stride), padded on both sides.

    With a stride it takes its whole input in one piece: only the encoder has such, and nothing streams into that.
    """

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

    def advance(self, x: Tensor, memory: Memory) -> Tensor:
        if self in memory.tails:
            x = torch.cat([memory.tails[self], x], dim=-1)
            if memory.is_last and self.right:
                x = F.pad(x, (0, self.right), self.pad_mode)
        else:
            if self in memory.pending:
                x = torch.cat([memory.pending.pop(self), x], dim=-1)
            if memory.is_last:
                return self._convolve(self._pad_whole(x))
            if x.shape[-1] <= max(self.left, self.right):  # A reflection needs one sample more than it adds.
                memory.pending[self] = x
                return x.new_empty(x.shape[0], self.weight.shape[0], 0)
            x = F.pad(x, (self.left, 0), self.pad_mode) if self.left else x
        memory.tails[self] = x[..., x.shape[-1] - (self.span - 1) :].clone()
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        if x.shape[-1] < self.span:
            return x.new_empty(x.shape[0], self.weight.shape[0], 0)
        return F.conv1d(x, self.weight, self.bias, self.stride, dilation=self.dilation)

    def _pad_whole(self, x: Tensor) -> Tensor:
        """audiocraft's `pad1d`: an input shorter than its reflection is lengthened with zeros for the time being."""
        right = self.right + -x.shape[-1] % self.stride  # The last window is filled up.
        missing = max(0, max(self.left, right) - x.shape[-1] + 1) if self.pad_mode == "reflect" else 0
        padded = F.pad(F.pad(x, (0, missing)), (self.left, right), self.pad_mode)
        return padded[..., : padded.shape[-1] - missing]


class Upsample(Layer):
    """A transposed convolution whose kernel is twice its stride, as a convolution over pairs of inputs.

    Output block i (`stride` samples) depends on the inputs i and i-1 alone, so no overlaps have to be added, and one
    matrix product gives all of it.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        # Row o * stride + r makes sample r of output o from (input i-1, input i): see `pair_weights`.
        self.weight = nn.Parameter(torch.empty(channels_out * stride, channels_in, 2), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(channels_out), requires_grad=False)
        self.stride = stride
        self.right = stride // 2
        self.left = stride - self.right

    @staticmethod
    def pair_weights(weight: Tensor) -> Tensor:
        """A transposed convolution's weights [C_in, C_out, 2 stride] → [C_out stride, C_in, 2]."""
        channels_in, channels_out, kernel = weight.shape
        taps = weight.reshape(channels_in, channels_out, 2, kernel // 2)  # [C_in, C_out, (i, i-1), stride]
        return taps.flip(2).permute(1, 3, 0, 2).reshape(-1, channels_in, 2).contiguous()

    def advance(self, x: Tensor, memory: Memory) -> Tensor:
        silence = x.new_zeros(x.shape[0], x.shape[1], 1)
        has_begun = self in memory.tails
        if memory.is_last:
            x = torch.cat([x, silence], dim=-1)
        if not x.shape[-1]:
            return x.new_empty(x.shape[0], self.bias.shape[0], 0)
        x = torch.cat([memory.tails[self] if has_begun else silence, x], dim=-1)
        memory.tails[self] = x[..., -1:].clone()
        y = self._blocks(x)
        return y[..., 0 if has_begun else self.left : y.shape[-1] - (self.right if memory.is_last else 0)]

    def _blocks(self, x: Tensor) -> Tensor:
        """[B, C_in, n + 1] → [B, C_out, n stride]."""
        batch, channels_in, length = x.shape
        channels_out, n = self.bias.shape[0], length - 1
        if self.weight.numel() >= _GEMM_WEIGHTS:
            pairs = x.unfold(-1, 2, 1).transpose(1, 2).reshape(batch * n, channels_in * 2)
            rows = product(pairs, self.weight.view(-1, channels_in * 2))  # [B n, C_out stride]
            y = rows.reshape(batch, n, channels_out, self.stride).transpose(1, 2)
        else:
            rows = F.conv1d(x, self.weight)  # [B, C_out stride, n]
            y = rows.view(batch, channels_out, self.stride, n).transpose(2, 3)
        return (y + self.bias[:, None, None]).reshape(batch, channels_out, n * self.stride)


def advance_all(layers: Iterable[nn.Module], x: Tensor, memory: Memory) -> Tensor:
    """Push a piece through one layer after the other."""
    for layer in layers:
        assert isinstance(layer, Layer)
        x = layer.advance(x, memory)
    return x


def product(rows: Tensor, weight: Tensor) -> Tensor:
    """rows: [N, K], weight: [M, K] → rows weightᵀ: [N, M]."""
    if rows.shape[0] <= _FEW_ROWS:
        return torch.mm(weight, rows.t()).t()
    return torch.mm(rows, weight.t())
