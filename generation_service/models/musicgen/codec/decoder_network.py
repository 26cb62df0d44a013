"""EnCodec's decoder for streams: codes to samples, chunk by chunk, for a batch of streams."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generation_service.models.musicgen.codec.encodec import Encodec
from generation_service.models.musicgen.codec.residual_lstm import ResidualLstm
from generation_service.models.musicgen.codec.row_products import (
    HalfProduct,
    PackedProduct,
    PlainProduct,
    ProductClass,
)
from generation_service.models.musicgen.codec.seanet import ResidualBlock
from generation_service.models.musicgen.codec.seanet_layers import Conv, Elu, Upsample
from generation_service.models.musicgen.codec.streaming_layers import (
    StreamingConv,
    StreamingLayer,
    StreamingLstm,
    StreamingOutput,
    StreamingResidualBlock,
    StreamingUpsample,
)

NetworkForm: TypeAlias = Literal["cpu", "cuda"]
"""What the network is made for. Each form runs on any device."""


class DecoderNetwork:
    """The decoder of a codec, with weights of its own.

    For CUDA, the upsampling layers, which are half of the arithmetic, multiply in float16, and the noise is 64 dB below
    the signal. Each layer in float16 adds noise at about -68 dB, so that all together would leave no more than 59 dB
    (41 dB in bfloat16). For the CPU, all is in float32.
    """

    def __init__(self, codec: Encodec, form: NetworkForm) -> None:
        self._codebooks = torch.cat(list(codec.quantizer.codebooks))  # [K size, dimension]
        offsets = torch.arange(codec.config.codebooks, device=codec.device) * codec.config.codebook_size
        self._offsets = offsets[:, None]  # [K, 1]
        self._form = form
        layers = _build_layers(codec.decoder, codec.config.elu_alpha, form)
        tail = 1 + next(index for index, layer in enumerate(layers) if isinstance(layer, StreamingLstm))
        self._head, self._tail = layers[:tail], layers[tail:]
        self._head_size = sum(layer.state_size for layer in self._head)
        self.state_size = sum(layer.state_size for layer in layers)
        """float32 numbers that one mono stream carries from chunk to chunk."""
        self.min_first_frames = next(n for n in itertools.count(1) if _yields_output(layers, n))
        """A first chunk that is not the last has at least this many frames of codes."""

    def __call__(self, codes: Tensor, states: Tensor | None, *, is_last: bool) -> tuple[Tensor, Tensor]:
        """Decodes the next chunk of B mono streams.

        codes: int64 [B, K, n]; states: [B, state_size], None for first chunks. → audio: [B, m], the samples that no
        longer depend on codes to come, and the states for the next chunk, which are meaningless after the last.
        n is at least 1, and at least `min_first_frames` in a first chunk that is not the last; in a last chunk that is
        not the first it may be 0.
        """
        x = F.embedding(codes + self._offsets, self._codebooks).sum(1)  # [B, n, dimension]
        head_states = tail_states = None
        if states is not None:
            head_states, tail_states = states[:, : self._head_size], states[:, self._head_size :]
        x, head_states = _run_layers(self._head, x, head_states, is_last)
        if self._form == "cuda" or len(x) == 1:
            x, tail_states = _run_layers(self._tail, x, tail_states, is_last)
        else:
            # One stream after another. This is as fast, because more would not fit into the cache; and it makes the
            # shapes, and so the results to the last bit, independent of the other streams.
            pairs = [
                _run_layers(self._tail, x[i : i + 1], None if tail_states is None else tail_states[i : i + 1], is_last)
                for i in range(len(x))
            ]
            x, tail_states = torch.cat([y for y, _ in pairs]), torch.cat([state for _, state in pairs])
        return x.squeeze(2), torch.cat([head_states, tail_states], dim=1)


def _run_layers(
    layers: Sequence[StreamingLayer], x: Tensor, states: Tensor | None, is_last: bool
) -> tuple[Tensor, Tensor]:
    """x: [B, n, C_in], states: [B, sum of the state sizes] → y: [B, m, C_out], and the states for the next chunk."""
    pieces = None if states is None else torch.split(states, [layer.state_size for layer in layers], dim=1)
    new_states = []
    for index, layer in enumerate(layers):
        x, state = layer(x, None if pieces is None else pieces[index], is_last)
        new_states.append(state)
    return x, torch.cat(new_states, dim=1)


def _yields_output(layers: Sequence[StreamingLayer], frames: int) -> bool:
    """Whether a first chunk of `frames` frames of codes is long enough for every layer."""
    for layer in layers:
        frames = layer.count_first_output(frames)
        if frames <= 0:
            return False
    return True


def _build_layers(decoder: nn.Sequential, alpha: float, form: NetworkForm) -> list[StreamingLayer]:
    """ELUs are part of the layers that follow them."""
    product: ProductClass = PackedProduct if form == "cpu" and torch._C._has_mkldnn else PlainProduct
    *body, output = (layer for layer in decoder if not isinstance(layer, Elu))
    layers: list[StreamingLayer] = []
    for layer in body:
        match layer:
            case Conv():
                layers.append(StreamingConv(layer, product))
            case ResidualLstm():
                layers.append(StreamingLstm(layer, product))
            case Upsample():
                layers.append(StreamingUpsample(layer, alpha, HalfProduct if form == "cuda" else product))
            case ResidualBlock():
                layers.append(StreamingResidualBlock(layer, alpha, product))
    assert isinstance(output, Conv)
    return [*layers, StreamingOutput(output, alpha, product)]
