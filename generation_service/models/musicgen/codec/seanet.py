"""SEANet, the network of EnCodec's encoder and decoder.

Architecture and layer numbering: audiocraft 1.3.0, `modules/seanet.py` (Défossez et al. 2022, "High Fidelity Neural
Audio Compression").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generation_service.models.musicgen.codec.encodec_config import EncodecConfig
from generation_service.models.musicgen.codec.streaming_layers import (
    Conv,
    Elu,
    StreamingLayer,
    StreamState,
    Upsample,
    forward_layers,
)
from generation_service.models.musicgen.codec.streaming_lstm import Lstm


class ResidualBlock(StreamingLayer):
    """Two convolutions and a shortcut, which is delayed until their output is available."""

    def __init__(self, channels: int, dilation: int, config: EncodecConfig) -> None:
        super().__init__()
        hidden = channels // config.compress
        self.block = nn.ModuleList(
            [
                Elu(config.elu_alpha),
                Conv(channels, hidden, config.residual_kernel_size, config.pad_mode, dilation=dilation),
                Elu(config.elu_alpha),
                Conv(hidden, channels, 1, config.pad_mode),
            ]
        )
        self.shortcut = Conv(channels, channels, 1, config.pad_mode) if config.has_conv_shortcut else None

    def forward_chunk(self, x: Tensor, state: StreamState) -> Tensor:
        y = forward_layers(self.block, x, state)
        if self in state.layer_states:
            x = torch.cat([state.layer_states[self], x], dim=-1)
        state.layer_states[self] = x[..., y.shape[-1] :].clone()
        x = x[..., : y.shape[-1]]
        return y.add_(x if self.shortcut is None else self.shortcut.forward_chunk(x, state))


def build_encoder_layers(config: EncodecConfig) -> nn.ModuleList:
    """Samples [B, 1, n hop] → latents [B, dimension, n]. The encoder takes its whole input at once."""
    channels = config.n_filters
    layers: list[StreamingLayer] = [Conv(1, channels, config.kernel_size, config.pad_mode)]
    for ratio in reversed(config.ratios):
        layers += _build_residual_blocks(channels, config)
        layers += [
            Elu(config.elu_alpha),
            Conv(channels, channels * 2, 2 * ratio, config.pad_mode, stride=ratio),
        ]
        channels *= 2
    layers += [
        Lstm(channels, config.lstm_layers),
        Elu(config.elu_alpha),
        Conv(channels, config.dimension, config.last_kernel_size, config.pad_mode),
    ]
    return nn.ModuleList(layers)


def build_decoder_layers(config: EncodecConfig) -> nn.ModuleList:
    """Latents [B, dimension, n] → samples [B, 1, n hop]."""
    channels = config.n_filters << len(config.ratios)
    layers: list[StreamingLayer] = [
        Conv(config.dimension, channels, config.kernel_size, config.pad_mode),
        Lstm(channels, config.lstm_layers),
    ]
    for ratio in config.ratios:
        layers += [Elu(config.elu_alpha), Upsample(channels, channels // 2, ratio)]
        channels //= 2
        layers += _build_residual_blocks(channels, config)
    layers += [Elu(config.elu_alpha), Conv(channels, 1, config.last_kernel_size, config.pad_mode)]
    return nn.ModuleList(layers)


def _build_residual_blocks(channels: int, config: EncodecConfig) -> list[StreamingLayer]:
    return [ResidualBlock(channels, config.dilation_base**i, config) for i in range(config.n_residual_layers)]
