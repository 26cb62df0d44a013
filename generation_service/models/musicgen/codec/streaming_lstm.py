"""EnCodec's LSTM, whose state is carried from piece to piece. Source: audiocraft 1.3.0, `modules/lstm.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generation_service.models.musicgen.codec.streaming_layers import Layer, Memory, product

_LONG_PIECE = 64
"""Frames from which on oneDNN's LSTM on the CPU is worth its reordering of the weights (67 MB for EnCodec 32 kHz) at
every call: 15-50 ms, as long as 10-20 frames take in the loop below."""


class Lstm(Layer):
    """LSTM layers with a shortcut around them all. Their memory has no bound, so their state is carried."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers).requires_grad_(False)

    def advance(self, x: Tensor, memory: Memory) -> Tensor:
        if not x.shape[-1]:
            return x
        tail = memory.tails.get(self)  # [B, 2, layers, C]: hidden and cell
        if tail is None:
            tail = x.new_zeros(x.shape[0], 2, self.lstm.num_layers, x.shape[1])
        if x.is_cuda or x.shape[-1] >= _LONG_PIECE:
            hidden, cell = tail.permute(1, 2, 0, 3).contiguous()
            y, (hidden, cell) = self.lstm(x.permute(2, 0, 1).contiguous(), (hidden, cell))  # [n, B, C]
            memory.tails[self] = torch.stack([hidden, cell]).permute(2, 0, 1, 3)
            return torch.add(y.permute(1, 2, 0), x)
        y = x.permute(2, 0, 1)  # [n, B, C]
        states = []
        for weights, state in zip(self.lstm.all_weights, tail.unbind(2), strict=True):
            y, state = _run_cell(y, weights, state)
            states.append(state)
        memory.tails[self] = torch.stack(states, dim=2)
        return y.permute(1, 2, 0) + x


def _run_cell(x: Tensor, weights: list[nn.Parameter], state: Tensor) -> tuple[Tensor, Tensor]:
    """One LSTM layer. x: [n, B, C], state: [B, 2, C] → [n, B, C], [B, 2, C]."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    steps, batch, channels = x.shape
    inputs = (product(x.reshape(steps * batch, channels), weight_ih) + (bias_ih + bias_hh)).view(steps, batch, -1)
    hidden, cell = state.unbind(1)
    outputs = x.new_empty(steps, batch, channels)
    for step in range(steps):
        gates = inputs[step] + product(hidden, weight_hh)  # [B, 4 C]: input, forget, cell, output
        passed, kept = gates[:, : 2 * channels].sigmoid_().chunk(2, dim=1)
        cell = kept * cell + passed * gates[:, 2 * channels : 3 * channels].tanh_()
        hidden = torch.mul(gates[:, 3 * channels :].sigmoid_(), cell.tanh(), out=outputs[step])
    return outputs, torch.stack([hidden, cell], dim=1)
