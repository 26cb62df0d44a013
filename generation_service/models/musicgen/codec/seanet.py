"""SEANet, EnCodec's encoder and decoder network.

Architecture and layer numbering: audiocraft 1.3.0, `modules/seanet.py` (Défossez et al. 2022, "High Fidelity Neural
Audio Compression").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generation_service.models.musicgen.codec.encodec_config import EncodecConfig
from generation_service.models.musicgen.codec.streaming_layers import Conv, Elu, Layer, Memory, Upsample, advance_all
from generation_service.models.musicgen.codec.streaming_lstm import Lstm


class ResidualBlock(Layer):
    """Two convolutions beside a shortcut, which waits for them."""

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

    def advance(self, x: Tensor, memory: Memory) -> Tensor:
        y = advance_all(self.block, x, memory)
        if self in memory.tails:
            x = torch.cat([memory.tails[self], x], dim=-1)
        memory.tails[self] = x[..., y.shape[-1] :].clone()
        x = x[..., : y.shape[-1]]
        return y.add_(x if self.shortcut is None else self.shortcut.advance(x, memory))


def encoder_layers(config: EncodecConfig) -> nn.ModuleList:
    """Samples [B, 1, n hop] → latents [B, dimension, n]; only in one piece."""
    channels = config.n_filters
    layers: list[Layer] = [Conv(1, channels, config.kernel_size, config.pad_mode)]
    for ratio in reversed(config.ratios):
        layers += _residual_blocks(channels, config)
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


def decoder_layers(config: EncodecConfig) -> nn.ModuleList:
    """Latents [B, dimension, n] → samples [B, 1, n hop]."""
    channels = config.n_filters << len(config.ratios)
    layers: list[Layer] = [
        Conv(config.dimension, channels, config.kernel_size, config.pad_mode),
        Lstm(channels, config.lstm_layers),
    ]
    for ratio in config.ratios:
        layers += [Elu(config.elu_alpha), Upsample(channels, channels // 2, ratio)]
        channels //= 2
        layers += _residual_blocks(channels, config)
    layers += [Elu(config.elu_alpha), Conv(channels, 1, config.last_kernel_size, config.pad_mode)]
    return nn.ModuleList(layers)


def _residual_blocks(channels: int, config: EncodecConfig) -> list[Layer]:
    return [ResidualBlock(channels, config.dilation_base**i, config) for i in range(config.n_residual_layers)]
