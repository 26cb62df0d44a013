"""Encodes the style of an excerpt for MusicGen-Style: features, a transformer, and a bottleneck of few codes.

Source: audiocraft after 1.3.0 (commit 011d1a1), `modules/conditioners.py`, StyleConditioner (Rouard et al. 2024, "Audio Conditioning for Music
Generation via Discrete Bottleneck Features"). audiocraft reads a random excerpt; here the request says which.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dgx_music.errors import InvalidArgument
from generation_service.models.base import FloatArray, StyleExcerpt
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.prefixes.prefix_config import (
    MAX_STYLE_SECONDS,
    MIN_STYLE_SECONDS,
    StyleConfig,
)
from generation_service.models.musicgen.codec.encodec import Encodec
from generation_service.models.musicgen.codec.quantizer import ResidualQuantizer
from generation_service.models.musicgen.conditioners.conditioner_weights import ConditionerWeights
from generation_service.models.musicgen.conditioners.mert import FEATURES, Mert
from generation_service.models.musicgen.conditioners.prompt_cache import PromptCache
from generation_service.models.musicgen.conditioners.side_stream import SideStream

MAX_CACHED_STYLES = 256
MAX_CACHED_BYTES = 64 << 20
_MAX_PERIOD = 10_000.0
_NORM_EPS = 1e-5


class _StyleFeatures(Protocol):
    def extract(self, samples: Tensor, sample_rate_hz: int) -> Tensor:
        """Mono samples, [n] → [T, dim of the conditioner]."""
        ...


class MertFeatures:
    """Features of MERT, projected."""

    def __init__(self, weights: ConditionerWeights, config: StyleConfig, mert: Mert) -> None:
        self._mert = mert
        self._weight, self._bias = weights("embed.weight", config.dim, FEATURES), weights("embed.bias", config.dim)

    def extract(self, samples: Tensor, sample_rate_hz: int) -> Tensor:
        return F.linear(self._mert.extract(samples, sample_rate_hz), self._weight, self._bias)


class EncodecFeatures:
    """The sum of the embeddings of EnCodec's first codes."""

    def __init__(self, weights: ConditionerWeights, config: StyleConfig, codec: Encodec) -> None:
        self._codec = codec
        size = codec.config.codebook_size
        self._tables = [weights(f"embed.{k}.weight", size, config.dim) for k in range(config.feature_codebooks)]

    def extract(self, samples: Tensor, sample_rate_hz: int) -> Tensor:
        codes = self._codec.encode(samples[:, None].numpy())  # [K, T]
        embeddings = (F.embedding(codes[k].to(table.device), table) for k, table in enumerate(self._tables))
        return torch.stack(list(embeddings)).sum(0)


@dataclass(frozen=True, slots=True, eq=False)
class _EncoderLayer:
    norm_self: tuple[Tensor, Tensor]
    qkv: Tensor
    out: Tensor
    norm_ff: tuple[Tensor, Tensor]
    up: Tensor
    down: Tensor


class StyleConditioner:
    """Encodes excerpts on the device of its weights, and keeps the latest. Any thread can call it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: StyleConfig,
        dim: int,
        source: Mert | Encodec,
        device: str | torch.device = "cpu",
    ) -> None:
        """Raises FailedPrecondition if weights are missing or do not have the shape that the configuration gives."""
        self.config = config
        weights = ConditionerWeights(checkpoint, config.name, device)
        self._features: _StyleFeatures
        if isinstance(source, Mert):
            self._features = MertFeatures(weights, config, source)
        else:
            self._features = EncodecFeatures(weights, config, source)
        self._layers = [_read_layer(weights, f"transformer.layers.{i}.", config.dim) for i in range(config.num_layers)]
        self._scale: tuple[Tensor, Tensor] | None = None
        if config.has_batch_norm:
            self._scale = weights("batch_norm.running_mean", config.dim), weights("batch_norm.running_var", config.dim)
        self._quantizer = ResidualQuantizer(config.codebooks, config.codebook_size, config.dim).to(device)
        for index, codebook in enumerate(self._quantizer.codebooks):
            name = f"rvq.vq.layers.{index}._codebook.embed"
            codebook.data = weights(name, config.codebook_size, config.dim)
        self._project = weights.projection(config.dim, dim)
        self._stream = SideStream(device)
        self._cache: PromptCache[Tensor] = PromptCache(MAX_CACHED_STYLES, MAX_CACHED_BYTES)

    def encode(self, excerpt: StyleExcerpt) -> Tensor:
        """The prefix, [P, dim]. Reads the first `excerpt_seconds` of audio that is longer than the model takes.

        Raises InvalidArgument if the excerpt is too short, or for more quantizers than there are.
        """
        audio, quantizers = self.select(excerpt)
        key = f"{hashlib.sha256(audio.data).hexdigest()} {audio.shape} {quantizers}"
        encoded = self._cache.get(key)
        if encoded is None:
            with self._stream.open():
                encoded = self._quantize(torch.from_numpy(audio.mean(1)), quantizers).cpu()
            self._cache.put(key, encoded, encoded.nbytes)
        return self._project(encoded)

    def select(self, excerpt: StyleExcerpt) -> tuple[FloatArray, int]:
        """What is read of an excerpt: the audio, [n, channels], and the number of quantizers."""
        rate, audio = self.config.sample_rate_hz, excerpt.audio
        quantizers = excerpt.quantizers or self.config.default_codebooks
        if quantizers > self.config.codebooks:
            problem = f"{quantizers} is more than this model has; use at most {self.config.codebooks}"
            raise InvalidArgument("conditioning.style.quantizers", problem)
        if len(audio) < int(MIN_STYLE_SECONDS * rate):
            problem = f"the excerpt has {len(audio) / rate:.2f} s; at least {MIN_STYLE_SECONDS} s are needed"
            raise InvalidArgument("conditioning.style.seconds", problem)
        if len(audio) > int(MAX_STYLE_SECONDS * rate):
            audio = audio[: int(self.config.excerpt_seconds * rate)]
        return np.ascontiguousarray(audio), quantizers

    @torch.inference_mode()
    def _quantize(self, samples: Tensor, quantizers: int) -> Tensor:
        """Mono samples, [n] → what passes the bottleneck, [P, config.dim]."""
        x = self._encode_features(self._features.extract(samples, self.config.sample_rate_hz))
        if self._scale is not None:
            mean, variance = self._scale
            x = (x - mean) / (variance + _NORM_EPS).sqrt()
        codes = self._quantizer.encode(x.t()[None], quantizers)  # [1, K, T]
        return self._quantizer.decode(codes)[0].t()[:: self.config.downsampling]

    def _encode_features(self, x: Tensor) -> Tensor:
        """The transformer, in which all frames see each other: [T, dim] → [T, dim]."""
        if not self._layers:
            return x
        count, dim, heads = len(x), self.config.dim, self.config.num_heads
        x = x + _sinusoidal_positions(count, dim).to(x.device)
        for layer in self._layers:
            qkv = F.linear(F.layer_norm(x, (dim,), *layer.norm_self, _NORM_EPS), layer.qkv)
            queries, keys, values = qkv.view(count, 3, heads, dim // heads).permute(1, 2, 0, 3)  # each [H, T, D]
            attended = F.scaled_dot_product_attention(queries[None], keys[None], values[None])[0]
            x = x + F.linear(attended.transpose(0, 1).reshape(count, dim), layer.out)
            hidden = F.gelu(F.linear(F.layer_norm(x, (dim,), *layer.norm_ff, _NORM_EPS), layer.up))
            x = x + F.linear(hidden, layer.down)
        return x


def _read_layer(weights: ConditionerWeights, prefix: str, dim: int) -> _EncoderLayer:
    def norm(name: str) -> tuple[Tensor, Tensor]:
        return weights(f"{prefix}{name}.weight", dim), weights(f"{prefix}{name}.bias", dim)

    return _EncoderLayer(
        norm_self=norm("norm1"),
        qkv=weights(f"{prefix}self_attn.in_proj_weight", 3 * dim, dim),
        out=weights(f"{prefix}self_attn.out_proj.weight", dim, dim),
        norm_ff=norm("norm2"),
        up=weights(f"{prefix}linear1.weight", 4 * dim, dim),
        down=weights(f"{prefix}linear2.weight", dim, 4 * dim),
    )


def _sinusoidal_positions(count: int, dim: int) -> Tensor:
    """audiocraft's `create_sin_embedding`: cosines first, then sines."""
    half = dim // 2
    phase = torch.arange(count).view(-1, 1) / _MAX_PERIOD ** (torch.arange(half) / (half - 1))
    return torch.cat([phase.cos(), phase.sin()], dim=-1)
