"""EnCodec: samples to codes and back, and back again piece by piece while the codes are still being made.

A stereo MusicGen model uses the same mono codec twice: its codebooks are interleaved, left and right in turn
(audiocraft's `InterleaveStereoCompressionModel`). Both sides are coded as a batch of two.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from generation_service.models.musicgen.codec.encodec_config import EncodecConfig
from generation_service.models.musicgen.codec.quantizer import ResidualQuantizer
from generation_service.models.musicgen.codec.seanet import decoder_layers, encoder_layers
from generation_service.models.musicgen.codec.streaming_layers import Memory, advance_all

FloatArray = npt.NDArray[np.float32]


class Encodec(nn.Module):
    """The codec. Made by `encodec_checkpoint.load_encodec`; its weights do not change."""

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder_layers(config)
        self.quantizer = ResidualQuantizer(config.codebooks, config.codebook_size, config.dimension)
        self.decoder = decoder_layers(config)

    @torch.inference_mode()
    def encode(self, samples: FloatArray) -> Tensor:
        """samples: [frames, channels] at the codec's rate, 1 or 2 channels, at least one frame → codes: [K, n], on
        the CPU.

        n is frames / hop, rounded up; K is the codec's codebooks, twice as many for stereo.
        """
        audio = torch.as_tensor(samples, dtype=torch.float32, device=self.device).t()[:, None]  # [channels, 1, frames]
        memory = Memory()
        memory.is_last = True
        codes = self.quantizer.encode(advance_all(self.encoder, audio, memory))  # [channels, K, n]
        return codes.transpose(0, 1).reshape(-1, codes.shape[-1]).cpu()

    def decode(self, codes: Tensor, channels: int) -> FloatArray:
        """codes: [K, n] (2 K for stereo) → samples: [n hop, channels], all at once."""
        decoder = StreamingDecoder(self, channels)
        return decoder.push(codes, is_last=True)

    @torch.inference_mode()
    def decode_rows(self, codes: Tensor, memory: Memory) -> Tensor:
        """A piece of one or more mono streams. codes: [B, K, n] → audio: [B, 1, frames]."""
        return advance_all(self.decoder, self.quantizer.decode(codes), memory)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device


class StreamingDecoder:
    """Decodes one sequence piece by piece. The pieces join to exactly what `Encodec.decode` makes of all codes at once.

    It stays less than 4 frames of codes behind: 3 are the first convolution's reach, the rest is the upsampler's. What
    it holds back comes with `finish`.
    """

    def __init__(self, codec: Encodec, channels: int) -> None:
        """`channels`: 1, or 2 for a codec used on interleaved stereo."""
        self._codec = codec
        self._channels = channels
        self._memory = Memory()
        self._has_input = False

    def push(self, codes: Tensor, *, is_last: bool = False) -> FloatArray:
        """codes: int64 [K, n] (2 K for stereo), the next n frames → samples: [frames, channels], as far as settled.

        With `is_last` the stream ends with these codes, and all that was held back comes too.
        """
        self._has_input |= codes.shape[1] > 0
        if not self._has_input:
            return np.zeros((0, self._channels), np.float32)
        self._memory.is_last = is_last
        return _to_samples(self._codec.decode_rows(self._to_rows(codes), self._memory))

    def finish(self) -> FloatArray:
        """The stream ends here: the samples held back, [frames, channels]."""
        return self.push(torch.zeros(self._channels * self._codec.config.codebooks, 0, dtype=torch.int64), is_last=True)

    def _to_rows(self, codes: Tensor) -> Tensor:
        """[K channels, n] → [channels, K, n]."""
        codebooks = self._codec.config.codebooks
        return codes.to(self._codec.device).view(codebooks, self._channels, codes.shape[1]).transpose(0, 1)


def _to_samples(audio: Tensor) -> FloatArray:
    """[channels, 1, frames] → [frames, channels]."""
    samples: FloatArray = audio[:, 0].t().contiguous().cpu().numpy()
    return samples
