"""The layers of EnCodec's decoder, computing a stream in chunks.

A layer takes a chunk and the state that the chunk before it left, and holds back output whose receptive field includes
input to come, so the chunks of output join to what the whole input would give in one pass, for any weights and any
chunk sizes, and nothing is computed twice. Padding is applied only at the true beginning and end of the stream.

Frames are rows: x is [B, n, C], so that a convolution is a matrix product of rows, and upsampling is a view of its
result. A state is [B, state_size]; there is none before the first chunk. Nothing here reads a tensor on the host, and
shapes depend on shapes alone, so a CUDA graph can capture a chunk.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.codec.residual_lstm import ResidualLstm
from generation_service.models.musicgen.codec.row_products import ProductClass
from generation_service.models.musicgen.codec.seanet import ResidualBlock
from generation_service.models.musicgen.codec.seanet_layers import Conv, Upsample


class StreamingLayer(Protocol):
    """A layer that processes a stream chunk by chunk."""

    state_size: int
    """Numbers that a stream carries from chunk to chunk."""

    def count_first_output(self, frames: int) -> int:
        """How many frames a first chunk yields; 0 if the chunk is too short to be the first."""
        ...

    def __call__(self, x: Tensor, state: Tensor | None, is_last: bool) -> tuple[Tensor, Tensor]:
        """x: [B, n, C_in], state: [B, state_size] → y: [B, m, C_out], and the state for the next chunk.

        `state` is None for the first chunk; after the last chunk the returned state is meaningless.
        """
        ...


class _Window:
    """Extends a chunk by what the receptive field of a convolution needs beside it."""

    def __init__(self, conv: Conv) -> None:
        self.left, self.right, self.span = conv.left, conv.right, conv.span
        self._reflects = conv.pad_mode == "reflect"

    def count_first_output(self, frames: int) -> int:
        # Reflection padding needs one frame more than it adds.
        return frames - self.right if frames > max(self.left, self.right) else 0

    def extend(self, x: Tensor, state: Tensor | None, is_last: bool) -> tuple[Tensor, Tensor]:
        """x: [B, n, C] → [B, n', C], and the state for the next chunk: [B, (span - 1) C]."""
        batch, frames, channels = x.shape
        parts = [x]
        missing = 0
        if state is not None:
            parts.insert(0, state.view(batch, self.span - 1, channels))
        elif self._reflects and is_last and frames <= max(self.left, self.right):
            # audiocraft's `pad1d` extends an input shorter than its reflection with zeros while it is padded.
            missing = max(self.left, self.right) - frames + 1
            parts = [F.pad(x, (0, 0, 0, missing))]
        if is_last and self.right:
            inner = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
            parts = [inner, self._pad(inner, inner.shape[1] - 1 - self.right, self.right)]
        if state is None and self.left:
            parts.insert(0, self._pad(parts[0], 1, self.left))
        extended = torch.cat(parts, dim=1)
        if missing:
            extended = extended[:, :-missing].contiguous()
        return extended, extended[:, extended.shape[1] - (self.span - 1) :].flatten(1)

    def _pad(self, x: Tensor, start: int, count: int) -> Tensor:
        """The `count` frames from `start` on in reverse, or zeros."""
        if self._reflects:
            return x[:, start : start + count].flip(1)
        return x.new_zeros(x.shape[0], count, x.shape[2])


class StreamingConv:
    """A convolution without stride."""

    def __init__(self, conv: Conv, product: ProductClass) -> None:
        self.state_size = (conv.span - 1) * conv.weight.shape[1]
        self._window = _Window(conv)
        self._convolution = RowConvolution(conv, product)
        self.count_first_output = self._window.count_first_output

    def __call__(self, x: Tensor, state: Tensor | None, is_last: bool) -> tuple[Tensor, Tensor]:
        x, state = self._window.extend(x, state, is_last)
        return self._convolution(x), state


class RowConvolution:
    """A convolution without padding: [B, n, C_in] → [B, n - span + 1, C_out]."""

    def __init__(self, conv: Conv, product: ProductClass) -> None:
        self._kernel, self._dilation, self._span = conv.weight.shape[2], conv.dilation, conv.span
        self._product = product(conv.weight.permute(0, 2, 1).flatten(1), conv.bias)

    def __call__(self, x: Tensor) -> Tensor:
        frames = x.shape[1] - self._span + 1
        if self._kernel == 1:
            return self._product(x)
        starts = range(0, self._span, self._dilation)
        return self._product(torch.cat([x[:, start : start + frames] for start in starts], dim=2))


class StreamingResidualBlock:
    """Two convolutions and a shortcut. The state is the block's last input, for the convolution and the shortcut."""

    def __init__(self, block: ResidualBlock, alpha: float, product: ProductClass) -> None:
        _, conv, _, pointwise = block.block
        assert isinstance(conv, Conv)
        assert isinstance(pointwise, Conv)
        self.state_size = (conv.span - 1) * conv.weight.shape[1]
        self._window = _Window(conv)
        self._conv, self._pointwise = RowConvolution(conv, product), RowConvolution(pointwise, product)
        self._shortcut = None if block.shortcut is None else RowConvolution(block.shortcut, product)
        self._alpha = alpha
        self.count_first_output = self._window.count_first_output

    def __call__(self, x: Tensor, state: Tensor | None, is_last: bool) -> tuple[Tensor, Tensor]:
        # Padding and activation commute: elu(0) = 0.
        x, state = self._window.extend(x, state, is_last)
        y = self._conv(F.elu(x, self._alpha))
        x = x[:, self._window.left : self._window.left + y.shape[1]]
        y = self._pointwise(F.elu_(y, self._alpha))
        return y.add_(x if self._shortcut is None else self._shortcut(x)), state


class StreamingUpsample:
    """ELU and a transposed convolution whose kernel is twice its stride, as a product of pairs of input frames.

    Output block i (`stride` frames) depends only on the inputs i and i-1, so there is no overlap to add.
    """

    def __init__(self, upsample: Upsample, alpha: float, product: ProductClass) -> None:
        channels_in, channels_out, _ = upsample.weight.shape
        self.state_size = channels_in
        self._stride, self._left, self._right = upsample.stride, upsample.left, upsample.right
        self._alpha = alpha
        taps = upsample.weight.view(channels_in, channels_out, 2, self._stride)  # [C_in, C_out, (i, i-1), stride]
        weight = taps.flip(2).permute(3, 1, 2, 0).reshape(self._stride * channels_out, 2 * channels_in)
        self._product = product(weight, upsample.bias.repeat(self._stride))

    def count_first_output(self, frames: int) -> int:
        return frames * self._stride - self._left

    def __call__(self, x: Tensor, state: Tensor | None, is_last: bool) -> tuple[Tensor, Tensor]:
        batch, _, channels = x.shape
        silence = x.new_zeros(batch, 1, channels)
        before = silence if state is None else state.view(batch, 1, channels)
        x = torch.cat([before, x, silence] if is_last else [before, x], dim=1)
        new_state = x[:, -1]
        x = F.elu(x, self._alpha)
        y = self._product(torch.cat([x[:, :-1], x[:, 1:]], dim=2))  # [B, n, stride C_out]
        y = y.view(batch, y.shape[1] * self._stride, -1)
        return y[:, self._left if state is None else 0 : y.shape[1] - (self._right if is_last else 0)], new_state


class StreamingLstm:
    """LSTM layers with a shortcut around them all. Their receptive field is unbounded, so their state is carried: the
    hidden and the cell state of each layer.
    """

    def __init__(self, layer: ResidualLstm, product: ProductClass) -> None:
        lstm = layer.lstm
        self._channels, self._layers = lstm.hidden_size, lstm.num_layers
        self.state_size = 2 * self._layers * self._channels
        self._products = [
            (product(weight_ih, bias_ih + bias_hh), product(weight_hh, None))
            for weight_ih, weight_hh, bias_ih, bias_hh in lstm.all_weights
        ]

    def count_first_output(self, frames: int) -> int:
        return frames

    def __call__(self, x: Tensor, state: Tensor | None, is_last: bool) -> tuple[Tensor, Tensor]:
        batch = x.shape[0]
        if not x.shape[1]:
            assert state is not None
            return x, state
        if state is None:
            state = x.new_zeros(batch, self.state_size)
        carried = state.view(batch, self._layers, 2, self._channels)
        y = x.transpose(0, 1)  # [n, B, C]
        new_states: list[Tensor] = []
        for layer, (input_product, hidden_product) in enumerate(self._products):
            hidden, cell = carried[:, layer].transpose(0, 1).contiguous()
            inputs = input_product(y)  # [n, B, 4 C]
            outputs = []
            for frame in range(len(inputs)):
                gates = hidden_product(hidden)  # [B, 4 C]
                hidden, cell = _update(inputs[frame], gates, cell)
                outputs.append(hidden)
            y = torch.stack(outputs)
            new_states += [hidden, cell]
        return y.transpose(0, 1) + x, torch.cat(new_states, dim=1)


def _update(inputs: Tensor, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM. inputs, gates: [B, 4 C] (input, forget, cell, output); cell: [B, C] → hidden, cell."""
    if cell.is_cuda:
        new_hidden, new_cell, _ = torch.ops.aten._thnn_fused_lstm_cell(inputs, gates, cell)
        return new_hidden, new_cell
    total = inputs + gates
    channels = cell.shape[1]
    input_gate, forget_gate = total[:, : 2 * channels].sigmoid().chunk(2, dim=1)
    cell = torch.addcmul(forget_gate * cell, input_gate, total[:, 2 * channels : 3 * channels].tanh())
    return total[:, 3 * channels :].sigmoid() * cell.tanh(), cell


class StreamingOutput:
    """ELU and the last convolution, to one channel."""

    def __init__(self, conv: Conv, alpha: float, product: ProductClass) -> None:
        channels, self._kernel = conv.weight.shape[1:]
        self.state_size = (conv.span - 1) * channels
        self._window = _Window(conv)
        self._alpha = alpha
        self._bias = conv.bias
        # Row k of the product is what a frame adds to the output k frames before it: no copies of windows of frames.
        self._product = product(conv.weight[0].t(), None)
        self.count_first_output = self._window.count_first_output

    def __call__(self, x: Tensor, state: Tensor | None, is_last: bool) -> tuple[Tensor, Tensor]:
        x, state = self._window.extend(x, state, is_last)
        parts = self._product(F.elu(x, self._alpha))  # [B, n', kernel]
        frames = x.shape[1] - self._window.span + 1
        y = parts[:, :frames, 0] + self._bias
        for tap in range(1, self._kernel):
            y += parts[:, tap : tap + frames, tap]
        return y.unsqueeze(2), state
