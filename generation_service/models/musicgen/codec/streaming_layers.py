"""EnCodec's convolutions as streaming layers.

A layer takes its input in chunks (`forward_chunk`) and stores in a `StreamState` what the next chunk needs. It holds
back output whose receptive field includes input to come, so the chunks of output join to what the whole input would
give in one pass, for any weights and any chunk sizes, and nothing is computed twice. Padding is applied only at the
true beginning and end of the stream.

What the layers compute: audiocraft 1.3.0, `modules/conv.py`. Weight norm is folded when the weights are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MIN_GEMM_WEIGHTS = 1 << 22
"""oneDNN reorders a convolution's weights at every call. From about this many weights on, that costs more than the
arithmetic, and a matrix product is faster."""

_MAX_LEFT_WEIGHT_ROWS = 4
"""Up to this many rows, MKL reads weights on the left of a product at memory bandwidth; on the right it reaches half of
that or less."""


class StreamState:
    """What one stream carries from chunk to chunk: at most one tensor per layer, batch first."""

    def __init__(self) -> None:
        self.pending_inputs: dict[StreamingLayer, Tensor] = {}
        """Input of layers that have received too little to produce output."""
        self.layer_states: dict[StreamingLayer, Tensor] = {}
        """State of the layers that have produced output: the last inputs, or an LSTM's hidden and cell state."""
        self.is_last = False
        """Whether the chunk being processed ends the stream."""


class StreamingLayer(nn.Module):
    """A part of the network that processes a stream chunk by chunk."""

    def forward_chunk(self, x: Tensor, state: StreamState) -> Tensor:
        """x: [B, C_in, n], n ≥ 0 → [B, C_out, m], the output that no longer depends on input to come."""
        raise NotImplementedError


class Elu(StreamingLayer):
    """Exponential linear unit."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward_chunk(self, x: Tensor, state: StreamState) -> Tensor:
        return F.elu(x, self.alpha)


class Conv(StreamingLayer):
    """A convolution padded on both sides, so that its output has the length of its input divided by the stride.

    A strided convolution takes its whole input at once. Only the encoder has them, and the encoder does not stream.
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

    def forward_chunk(self, x: Tensor, state: StreamState) -> Tensor:
        if self in state.layer_states:
            x = torch.cat([state.layer_states[self], x], dim=-1)
            if state.is_last and self.right:
                x = F.pad(x, (0, self.right), self.pad_mode)
        else:
            if self in state.pending_inputs:
                x = torch.cat([state.pending_inputs.pop(self), x], dim=-1)
            if state.is_last:
                return self._convolve(self._pad_both_ends(x))
            if x.shape[-1] <= max(self.left, self.right):  # Reflection padding needs one sample more than it adds.
                state.pending_inputs[self] = x
                return x.new_empty(x.shape[0], self.weight.shape[0], 0)
            x = F.pad(x, (self.left, 0), self.pad_mode) if self.left else x
        state.layer_states[self] = x[..., x.shape[-1] - (self.span - 1) :].clone()
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        if x.shape[-1] < self.span:
            return x.new_empty(x.shape[0], self.weight.shape[0], 0)
        return F.conv1d(x, self.weight, self.bias, self.stride, dilation=self.dilation)

    def _pad_both_ends(self, x: Tensor) -> Tensor:
        """audiocraft's `pad1d`: an input shorter than its reflection is extended with zeros while it is padded."""
        right = self.right + -x.shape[-1] % self.stride  # Fills the last stride.
        missing = max(0, max(self.left, right) - x.shape[-1] + 1) if self.pad_mode == "reflect" else 0
        padded = F.pad(F.pad(x, (0, missing)), (self.left, right), self.pad_mode)
        return padded[..., : padded.shape[-1] - missing]


class Upsample(StreamingLayer):
    """A transposed convolution whose kernel is twice its stride, computed as a convolution over pairs of inputs.

    Output block i (`stride` samples) depends only on the inputs i and i-1, so there is no overlap to add, and one
    matrix product computes all of it.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        # Row o * stride + r computes sample r of output o from (input i-1, input i): see `to_pair_weights`.
        self.weight = nn.Parameter(torch.empty(channels_out * stride, channels_in, 2), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(channels_out), requires_grad=False)
        self.stride = stride
        self.right = stride // 2
        self.left = stride - self.right

    @staticmethod
    def to_pair_weights(weight: Tensor) -> Tensor:
        """The weights of a transposed convolution: [C_in, C_out, 2 stride] → [C_out stride, C_in, 2]."""
        channels_in, channels_out, kernel = weight.shape
        taps = weight.reshape(channels_in, channels_out, 2, kernel // 2)  # [C_in, C_out, (i, i-1), stride]
        return taps.flip(2).permute(1, 3, 0, 2).reshape(-1, channels_in, 2).contiguous()

    def forward_chunk(self, x: Tensor, state: StreamState) -> Tensor:
        silence = x.new_zeros(x.shape[0], x.shape[1], 1)
        has_begun = self in state.layer_states
        if state.is_last:
            x = torch.cat([x, silence], dim=-1)
        if not x.shape[-1]:
            return x.new_empty(x.shape[0], self.bias.shape[0], 0)
        x = torch.cat([state.layer_states[self] if has_begun else silence, x], dim=-1)
        state.layer_states[self] = x[..., -1:].clone()
        y = self._convolve_pairs(x)
        return y[..., 0 if has_begun else self.left : y.shape[-1] - (self.right if state.is_last else 0)]

    def _convolve_pairs(self, x: Tensor) -> Tensor:
        """[B, C_in, n + 1] → [B, C_out, n stride]."""
        batch, channels_in, length = x.shape
        channels_out, n = self.bias.shape[0], length - 1
        if self.weight.numel() >= _MIN_GEMM_WEIGHTS:
            pairs = x.unfold(-1, 2, 1).transpose(1, 2).reshape(batch * n, channels_in * 2)
            rows = fast_linear(pairs, self.weight.view(-1, channels_in * 2))  # [B n, C_out stride]
            y = rows.reshape(batch, n, channels_out, self.stride).transpose(1, 2)
        else:
            rows = F.conv1d(x, self.weight)  # [B, C_out stride, n]
            y = rows.view(batch, channels_out, self.stride, n).transpose(2, 3)
        return (y + self.bias[:, None, None]).reshape(batch, channels_out, n * self.stride)


def forward_layers(layers: Iterable[nn.Module], x: Tensor, state: StreamState) -> Tensor:
    """Passes a chunk through the layers in order."""
    for layer in layers:
        assert isinstance(layer, StreamingLayer)
        x = layer.forward_chunk(x, state)
    return x


def fast_linear(rows: Tensor, weight: Tensor) -> Tensor:
    """rows: [N, K], weight: [M, K] → rows weightᵀ: [N, M]."""
    if rows.shape[0] <= _MAX_LEFT_WEIGHT_ROWS:
        return torch.mm(weight, rows.t()).t()
    return torch.mm(rows, weight.t())
