"""EnCodec's LSTM, whose state is carried from chunk to chunk. Source: audiocraft 1.3.0, `modules/lstm.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generation_service.models.musicgen.codec.streaming_layers import StreamingLayer, StreamState, fast_linear

_MIN_ONEDNN_FRAMES = 64
"""oneDNN's LSTM reorders the weights (67 MB for EnCodec 32 kHz) at every call on the CPU, which takes 15-50 ms, as long
as 10-20 frames take in the loop below. It is faster for chunks of at least this many frames."""


class Lstm(StreamingLayer):
    """LSTM layers with a shortcut around them all. Their receptive field is unbounded, so state is carried."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers).requires_grad_(False)

    def forward_chunk(self, x: Tensor, state: StreamState) -> Tensor:
        if not x.shape[-1]:
            return x
        carried = state.layer_states.get(self)  # [B, 2, layers, C]: hidden and cell
        if carried is None:
            carried = x.new_zeros(x.shape[0], 2, self.lstm.num_layers, x.shape[1])
        if x.is_cuda or x.shape[-1] >= _MIN_ONEDNN_FRAMES:
            hidden, cell = carried.permute(1, 2, 0, 3).contiguous()
            y, (hidden, cell) = self.lstm(x.permute(2, 0, 1).contiguous(), (hidden, cell))  # [n, B, C]
            state.layer_states[self] = torch.stack([hidden, cell]).permute(2, 0, 1, 3)
            return torch.add(y.permute(1, 2, 0), x)
        y = x.permute(2, 0, 1)  # [n, B, C]
        new_states = []
        for weights, layer_state in zip(self.lstm.all_weights, carried.unbind(2), strict=True):
            y, layer_state = _run_layer(y, weights, layer_state)
            new_states.append(layer_state)
        state.layer_states[self] = torch.stack(new_states, dim=2)
        return y.permute(1, 2, 0) + x


def _run_layer(x: Tensor, weights: list[nn.Parameter], state: Tensor) -> tuple[Tensor, Tensor]:
    """Runs one LSTM layer frame by frame. x: [n, B, C], state: [B, 2, C] → [n, B, C], [B, 2, C]."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    steps, batch, channels = x.shape
    inputs = (fast_linear(x.reshape(steps * batch, channels), weight_ih) + (bias_ih + bias_hh)).view(steps, batch, -1)
    hidden, cell = state.unbind(1)
    outputs = x.new_empty(steps, batch, channels)
    for step in range(steps):
        gates = inputs[step] + fast_linear(hidden, weight_hh)  # [B, 4 C]: input, forget, cell, output
        input_gate, forget_gate = gates[:, : 2 * channels].sigmoid_().chunk(2, dim=1)
        cell = forget_gate * cell + input_gate * gates[:, 2 * channels : 3 * channels].tanh_()
        hidden = torch.mul(gates[:, 3 * channels :].sigmoid_(), cell.tanh(), out=outputs[step])
    return outputs, torch.stack([hidden, cell], dim=1)
