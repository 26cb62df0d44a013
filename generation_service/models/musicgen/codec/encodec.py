"""The EnCodec codec: encodes samples to codes, and decodes codes at once or chunk by chunk as they are generated.

A stereo MusicGen model uses the same mono codec twice: its codebooks are interleaved, left and right alternating
(audiocraft's `InterleaveStereoCompressionModel`). Both channels are processed as a batch of two.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from generation_service.models.base import FloatArray
from generation_service.models.musicgen.codec.encodec_config import EncodecConfig
from generation_service.models.musicgen.codec.quantizer import ResidualQuantizer
from generation_service.models.musicgen.codec.seanet import build_decoder_layers, build_encoder_layers
from generation_service.models.musicgen.codec.streaming_layers import StreamState, forward_layers


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
        state = StreamState()
        state.is_last = True
        codes = self.quantizer.encode(forward_layers(self.encoder, audio, state))  # [channels, K, n]
        return codes.transpose(0, 1).reshape(-1, codes.shape[-1]).cpu()

    def decode(self, codes: Tensor, channels: int) -> FloatArray:
        """Decodes in one pass. codes: [K, n] (2 K for stereo) → samples: [n hop, channels]."""
        decoder = StreamingDecoder(self, channels)
        return decoder.decode_chunk(codes, is_last=True)

    @torch.inference_mode()
    def decode_chunk(self, codes: Tensor, state: StreamState) -> Tensor:
        """Decodes the next chunk of B mono streams. codes: [B, K, n] → audio: [B, 1, frames]."""
        return forward_layers(self.decoder, self.quantizer.decode(codes), state)

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return next(self.parameters()).device


class StreamingDecoder:
    """Decodes one sequence chunk by chunk. The chunks join to exactly what `Encodec.decode` returns for all codes.

    The output lags by less than 4 frames of codes: 3 are the look-ahead of the first convolution, the rest is that of
    the upsampling layers. `flush` returns the rest.
    """

    def __init__(self, codec: Encodec, channels: int) -> None:
        """`channels` is 1, or 2 if the codes are interleaved stereo."""
        self._codec = codec
        self._channels = channels
        self._state = StreamState()
        self._has_input = False

    def decode_chunk(self, codes: Tensor, *, is_last: bool = False) -> FloatArray:
        """codes: int64 [K, n] (2 K for stereo), the next n frames → samples: [frames, channels].

        Returns the samples that no longer depend on codes to come. With `is_last` the stream ends with these codes, and
        everything that was held back is returned too.
        """
        self._has_input |= codes.shape[1] > 0
        if not self._has_input:
            return np.zeros((0, self._channels), np.float32)
        self._state.is_last = is_last
        return _to_samples(self._codec.decode_chunk(self._split_channels(codes), self._state))

    def flush(self) -> FloatArray:
        """Ends the stream and returns the samples held back: [frames, channels]."""
        no_codes = torch.zeros(self._channels * self._codec.config.codebooks, 0, dtype=torch.int64)
        return self.decode_chunk(no_codes, is_last=True)

    def _split_channels(self, codes: Tensor) -> Tensor:
        """[K channels, n] → [channels, K, n]."""
        codebooks = self._codec.config.codebooks
        return codes.to(self._codec.device).view(codebooks, self._channels, codes.shape[1]).transpose(0, 1)


def _to_samples(audio: Tensor) -> FloatArray:
    """[channels, 1, frames] → [frames, channels]."""
    samples: FloatArray = audio[:, 0].t().contiguous().cpu().numpy()
    return samples
