"""The EnCodec codec: encodes samples to codes, and decodes codes in one pass. `ChunkDecoder` decodes in chunks.

A stereo MusicGen model uses the same mono codec twice: its codebooks are interleaved, left and right alternating
(audiocraft's `InterleaveStereoCompressionModel`). Both channels are processed as a batch of two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generation_service.models.base import FloatArray
from generation_service.models.musicgen.codec.encodec_config import EncodecConfig
from generation_service.models.musicgen.codec.quantizer import ResidualQuantizer
from generation_service.models.musicgen.codec.seanet import build_decoder_layers, build_encoder_layers


class Encodec(nn.Module):
    """The codec, built by `encodec_checkpoint.load_encodec`. Its weights do not change."""

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder_layers(config)
        self.quantizer = ResidualQuantizer(config.codebooks, config.codebook_size, config.dimension)
        self.decoder = build_decoder_layers(config)

    @torch.inference_mode()
    def encode(self, samples: FloatArray) -> Tensor:
        """samples: [frames, channels] at the codec's rate, 1 or 2 channels, at least one frame → codes: [K, n].

        n is frames / hop, rounded up; K is the codec's number of codebooks, doubled for stereo. The codes are on the
        CPU.
        """
        audio = torch.as_tensor(samples, dtype=torch.float32, device=self.device).t()[:, None]  # [channels, 1, frames]
        codes = self.quantizer.encode(self.encoder(audio))  # [channels, K, n]
        return codes.transpose(0, 1).reshape(-1, codes.shape[-1]).cpu()

    @torch.inference_mode()
    def decode(self, codes: Tensor, channels: int) -> FloatArray:
        """Decodes in one pass. codes: int64 [K, n] (2 K for stereo), n ≥ 1 → samples: [n hop, channels].

        This defines what `ChunkDecoder` returns.
        """
        separate = split_channels(codes.to(self.device), channels)
        audio: Tensor = self.decoder(self.quantizer.decode(separate))  # [channels, 1, n hop]
        samples: FloatArray = audio[:, 0].t().contiguous().cpu().numpy()
        return samples

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return next(self.parameters()).device


def split_channels(codes: Tensor, channels: int) -> Tensor:
    """Separates interleaved codebooks: [K channels, n] → [channels, K, n]."""
    return codes.view(codes.shape[0] // channels, channels, codes.shape[1]).transpose(0, 1)
