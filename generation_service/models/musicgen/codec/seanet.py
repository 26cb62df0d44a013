"""SEANet, the network of EnCodec's encoder and decoder.

Architecture and layer numbering: audiocraft 1.3.0, `modules/seanet.py` (Défossez et al. 2022, "High Fidelity Neural
Audio Compression").
"""

from __future__ import annotations

from torch import Tensor, nn

from generation_service.models.musicgen.codec.encodec_config import EncodecConfig
from generation_service.models.musicgen.codec.residual_lstm import ResidualLstm
from generation_service.models.musicgen.codec.seanet_layers import Conv, Elu, Upsample


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels: int, dilation: int, config: EncodecConfig) -> None:
        super().__init__()
        hidden = channels // config.compress
        self.block = nn.Sequential(
            Elu(config.elu_alpha),
            Conv(channels, hidden, config.residual_kernel_size, config.pad_mode, dilation=dilation),
            Elu(config.elu_alpha),
            Conv(hidden, channels, 1, config.pad_mode),
        )
        self.shortcut = Conv(channels, channels, 1, config.pad_mode) if config.has_conv_shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return y.add_(x if self.shortcut is None else self.shortcut(x))


def build_encoder_layers(config: EncodecConfig) -> nn.Sequential:
    """Samples [B, 1, n hop] → latents [B, dimension, n]."""
    channels = config.n_filters
    layers: list[nn.Module] = [Conv(1, channels, config.kernel_size, config.pad_mode)]
    for ratio in reversed(config.ratios):
        layers += _build_residual_blocks(channels, config)
        layers += [
            Elu(config.elu_alpha),
            Conv(channels, channels * 2, 2 * ratio, config.pad_mode, stride=ratio),
        ]
        channels *= 2
    layers += [
        ResidualLstm(channels, config.lstm_layers),
        Elu(config.elu_alpha),
        Conv(channels, config.dimension, config.last_kernel_size, config.pad_mode),
    ]
    return nn.Sequential(*layers)


def build_decoder_layers(config: EncodecConfig) -> nn.Sequential:
    """Latents [B, dimension, n] → samples [B, 1, n hop]."""
    channels = config.n_filters << len(config.ratios)
    layers: list[nn.Module] = [
        Conv(config.dimension, channels, config.kernel_size, config.pad_mode),
        ResidualLstm(channels, config.lstm_layers),
    ]
    for ratio in config.ratios:
        layers += [Elu(config.elu_alpha), Upsample(channels, channels // 2, ratio)]
        channels //= 2
        layers += _build_residual_blocks(channels, config)
    layers += [Elu(config.elu_alpha), Conv(channels, 1, config.last_kernel_size, config.pad_mode)]
    return nn.Sequential(*layers)


def _build_residual_blocks(channels: int, config: EncodecConfig) -> list[nn.Module]:
    return [ResidualBlock(channels, config.dilation_base**i, config) for i in range(config.n_residual_layers)]
