"""Writes EnCodec checkpoints with random weights, in the real formats of audiocraft and transformers.

The codec is always mono: a stereo MusicGen model uses the same file on interleaved codebooks, as
`interleave_stereo_codebooks` in the *language model's* configuration says. This module needs torch and PyYAML, but
neither audiocraft nor transformers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor


@dataclass(frozen=True)
class CodecShape:
    """The settings in which codecs differ; all others are those of audiocraft's `encodec_large_nq4_s640`."""

    n_filters: int
    ratios: tuple[int, ...]
    dimension: int
    codebook_size: int
    codebooks: int = 4
    sample_rate_hz: int = 32_000
    n_residual_layers: int = 1
    lstm_layers: int = 2
    true_skip: bool = True
    pad_mode: str = "constant"
    weight_norm: bool = True


FULL_CODEC = CodecShape(n_filters=64, ratios=(8, 5, 4, 4), dimension=128, codebook_size=2048)
"""EnCodec 32 kHz as MusicGen uses it: 59 M weights, 50 frames of codes per second."""
TINY_CODEC = CodecShape(n_filters=4, ratios=(8, 5, 4, 4), dimension=16, codebook_size=64)
"""The hop and the rate of the full shape, at a thousandth of its cost."""
CODEC_SHAPES = {
    "constant": TINY_CODEC,
    "reflect": CodecShape(4, (8, 5, 4, 4), 16, 64, pad_mode="reflect"),
    "plain weights, odd ratios, conv shortcut": CodecShape(
        4, (5, 3, 2), 8, 32, codebooks=2, n_residual_layers=2, true_skip=False, pad_mode="reflect", weight_norm=False
    ),
    "dilated, three LSTM layers": CodecShape(3, (2, 2), 8, 16, codebooks=3, n_residual_layers=3, lstm_layers=3),
}
"""Small codecs, which differ in all that codecs can differ in."""
LONG_MEMORY = 6.0
"""With this forget bias, an LSTM's state decays by a factor of e in about 400 frames."""


def write_compression_checkpoint(
    folder: Path, shape: CodecShape = TINY_CODEC, *, seed: int = 0, forget_bias: float = 0.0
) -> Path:
    """Writes `folder/compression_state_dict.bin` as audiocraft 1.3.0's `export_encodec` does.

    `forget_bias` is added to the forget gates of the LSTMs; with about 5, their state lasts for hundreds of frames.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "compression_state_dict.bin"
    package = {
        "best_state": audiocraft_state(shape, seed=seed, forget_bias=forget_bias),
        "xp.cfg": yaml.safe_dump(audiocraft_config(shape)),
        "version": "1.3.0",
        "exported": True,
    }
    torch.save(package, path)
    return path


def random_codes(shape: CodecShape, frames: int, channels: int = 1, seed: int = 1) -> Tensor:
    """int64 [K, frames] (2 K for stereo)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, shape.codebook_size, (shape.codebooks * channels, frames), generator=generator)


def snr_db(actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    """Signal-to-noise ratio."""
    noise = actual.astype(np.float64) - expected
    return float(10 * np.log10(np.mean(np.square(expected, dtype=np.float64)) / (np.mean(noise**2) + 1e-30)))


def write_pretrained_reference(folder: Path, name: str = "facebook/encodec_32khz") -> Path:
    """Writes a file that only names its codec, as audiocraft's `export_pretrained_compression_model` does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "compression_state_dict.bin"
    torch.save({"pretrained": name, "exported": True, "version": "1.3.0"}, path)
    return path


def write_transformers_codec(
    folder: Path, shape: CodecShape = TINY_CODEC, *, seed: int = 0, forget_bias: float = 0.0, safetensors: bool = True
) -> Path:
    """Writes a folder as transformers' `EncodecModel.save_pretrained` does, with the weights of the audiocraft file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(transformers_config(shape), indent=2))
    state = {
        name.replace(".model.", ".layers.")
        .replace(".conv.conv.", ".conv.")
        .replace(".convtr.convtr.", ".conv.")
        .replace(".vq.", ".")
        .replace("._codebook.", ".codebook.")
        .replace(".weight_g", ".parametrizations.weight.original0" if safetensors else ".weight_g")
        .replace(".weight_v", ".parametrizations.weight.original1" if safetensors else ".weight_v"): weight
        for name, weight in audiocraft_state(shape, seed=seed, forget_bias=forget_bias).items()
    }
    if safetensors:
        from safetensors.torch import save_file

        save_file({name: weight.contiguous() for name, weight in state.items()}, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin")
    return folder


def audiocraft_config(shape: CodecShape) -> dict[str, Any]:
    """The part of the training configuration that describes the model, with its `${…}` unresolved."""
    return {
        "sample_rate": shape.sample_rate_hz,
        "channels": 1,
        "compression_model": "encodec",
        "encodec": {
            "autoencoder": "seanet",
            "quantizer": "rvq",
            "sample_rate": "${sample_rate}",
            "channels": "${channels}",
            "causal": False,
            "renormalize": False,
        },
        "seanet": {
            "dimension": shape.dimension,
            "channels": "${channels}",
            "causal": "${encodec.causal}",
            "n_filters": shape.n_filters,
            "n_residual_layers": shape.n_residual_layers,
            "ratios": list(shape.ratios),
            "activation": "ELU",
            "activation_params": {"alpha": 1.0},
            "norm": "weight_norm" if shape.weight_norm else "none",
            "norm_params": {},
            "kernel_size": 7,
            "residual_kernel_size": 3,
            "last_kernel_size": 7,
            "dilation_base": 2,
            "pad_mode": shape.pad_mode,
            "true_skip": shape.true_skip,
            "compress": 2,
            "lstm": shape.lstm_layers,
            "disable_norm_outer_blocks": 0,
            "decoder": {"trim_right_ratio": 1.0, "final_activation": None, "final_activation_params": None},
            "encoder": {},
        },
        "rvq": {
            "n_q": shape.codebooks,
            "q_dropout": False,
            "bins": shape.codebook_size,
            "decay": 0.99,
            "kmeans_init": True,
            "kmeans_iters": 50,
            "threshold_ema_dead_code": 2,
            "orthogonal_reg_weight": 0.0,
            "orthogonal_reg_active_codes_only": False,
        },
    }


def transformers_config(shape: CodecShape) -> dict[str, Any]:
    """The `config.json` of this shape, as the conversion of facebook/encodec_32khz wrote it."""
    hop = 1
    for ratio in shape.ratios:
        hop *= ratio
    bits = (shape.codebook_size - 1).bit_length() * shape.codebooks
    return {
        "architectures": ["EncodecModel"],
        "audio_channels": 1,
        "chunk_length_s": None,
        "codebook_dim": shape.dimension,
        "codebook_size": shape.codebook_size,
        "compress": 2,
        "dilation_growth_rate": 2,
        "hidden_size": shape.dimension,
        "kernel_size": 7,
        "last_kernel_size": 7,
        "model_type": "encodec",
        "norm_type": "weight_norm",
        "normalize": False,
        "num_filters": shape.n_filters,
        "num_lstm_layers": shape.lstm_layers,
        "num_residual_layers": shape.n_residual_layers,
        "overlap": None,
        "pad_mode": shape.pad_mode,
        "residual_kernel_size": 3,
        "sampling_rate": shape.sample_rate_hz,
        "target_bandwidths": [bits * -(-shape.sample_rate_hz // hop) / 1000],
        "torch_dtype": "float32",
        "trim_right_ratio": 1.0,
        "upsampling_ratios": list(shape.ratios),
        "use_causal_conv": False,
        "use_conv_shortcut": not shape.true_skip,
    }


def audiocraft_state(shape: CodecShape, *, seed: int = 0, forget_bias: float = 0.0) -> dict[str, Tensor]:
    """`best_state`: random weights, scaled to keep the signal's level from layer to layer."""
    writer = _StateWriter(shape, torch.Generator().manual_seed(seed), forget_bias)
    width = shape.n_filters
    layers: list[tuple[str, tuple[int, ...]]] = [("conv", (width, 1, 7))]
    for ratio in reversed(shape.ratios):
        layers += [("block", (width, 2**i)) for i in range(shape.n_residual_layers)]
        layers += [("elu", ()), ("conv", (2 * width, width, 2 * ratio))]
        width *= 2
    layers += [("lstm", (width,)), ("elu", ()), ("conv", (shape.dimension, width, 7))]
    writer.write("encoder", layers)
    layers = [("conv", (width, shape.dimension, 7)), ("lstm", (width,))]
    for ratio in shape.ratios:
        layers += [("elu", ()), ("convtr", (width, width // 2, 2 * ratio))]
        width //= 2
        layers += [("block", (width, 2**i)) for i in range(shape.n_residual_layers)]
    layers += [("elu", ()), ("conv", (1, width, 7))]
    writer.write("decoder", layers)
    writer.write_codebooks()
    return writer.state


class _StateWriter:
    def __init__(self, shape: CodecShape, generator: torch.Generator, forget_bias: float) -> None:
        self.state: dict[str, Tensor] = {}
        self._shape = shape
        self._generator = generator
        self._forget_bias = forget_bias

    def write(self, part: str, layers: list[tuple[str, tuple[int, ...]]]) -> None:
        for index, (kind, size) in enumerate(layers):
            name = f"{part}.model.{index}"
            if kind == "block":
                width = size[0]
                self._conv(f"{name}.block.1.conv.conv", (width // 2, width, 3), width * 3)
                self._conv(f"{name}.block.3.conv.conv", (width, width // 2, 1), width // 2)
                if not self._shape.true_skip:
                    self._conv(f"{name}.shortcut.conv.conv", (width, width, 1), width)
            elif kind == "conv":
                self._conv(f"{name}.conv.conv", size, size[1] * size[2])
            elif kind == "convtr":
                self._conv(f"{name}.convtr.convtr", size, size[0] * 2, biases=size[1])
            elif kind == "lstm":
                self._lstm(f"{name}.lstm", size[0])

    def write_codebooks(self) -> None:
        shape = self._shape
        for index in range(shape.codebooks):
            name = f"quantizer.vq.layers.{index}._codebook"
            embed = self._normal((shape.codebook_size, shape.dimension), 0.5**index)
            self.state[f"{name}.inited"] = torch.ones(1)
            self.state[f"{name}.cluster_size"] = torch.ones(shape.codebook_size)
            self.state[f"{name}.embed"] = embed
            self.state[f"{name}.embed_avg"] = embed.clone()

    def _normal(self, size: tuple[int, ...], deviation: float) -> Tensor:
        return torch.randn(size, generator=self._generator) * deviation

    def _conv(self, name: str, size: tuple[int, ...], fan_in: int, biases: int | None = None) -> None:
        weight = self._normal(size, fan_in**-0.5)
        self.state[f"{name}.bias"] = self._normal((size[0] if biases is None else biases,), 0.02)
        if self._shape.weight_norm:
            norm = weight.flatten(1).norm(dim=1)[:, None, None]
            self.state[f"{name}.weight_g"] = norm
            self.state[f"{name}.weight_v"] = weight * 3  # Its norm is irrelevant.
        else:
            self.state[f"{name}.weight"] = weight

    def _lstm(self, name: str, width: int) -> None:
        for layer in range(self._shape.lstm_layers):
            for part in ("ih", "hh"):
                self.state[f"{name}.weight_{part}_l{layer}"] = self._normal((4 * width, width), 0.5 * width**-0.5)
                bias = self._normal((4 * width,), 0.1)
                if part == "ih":
                    bias[width : 2 * width] += self._forget_bias  # torch's order: input, forget, cell, output
                self.state[f"{name}.bias_{part}_l{layer}"] = bias
