"""The shape of an EnCodec model, as audiocraft's `xp.cfg` and transformers' `config.json` say it.

Only what MusicGen's codecs use is understood: one channel, not causal, weight norm or none, ELU, LSTM. Anything else is
refused by name, since weights that load into the wrong network make noise instead of an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.audiocraft_file import refuse

PAD_MODES = ("reflect", "constant")


@dataclass(frozen=True, slots=True)
class EncodecConfig:
    """Hyperparameters by the names of audiocraft's SEANet; the defaults are EnCodec 32 kHz, as MusicGen uses it."""

    sample_rate_hz: int = 32_000
    dimension: int = 128
    n_filters: int = 64
    ratios: tuple[int, ...] = (8, 5, 4, 4)
    """Up-sampling factors in the decoder's order; the encoder has them reversed."""
    n_residual_layers: int = 1
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_base: int = 2
    compress: int = 2
    lstm_layers: int = 2
    has_conv_shortcut: bool = False
    elu_alpha: float = 1.0
    pad_mode: str = "constant"
    codebooks: int = 4
    codebook_size: int = 2048

    @property
    def hop_frames(self) -> int:
        """Audio frames that one frame of codes stands for."""
        return math.prod(self.ratios)

    @property
    def frame_rate_hz(self) -> float:
        """Frames of codes a second."""
        return self.sample_rate_hz / self.hop_frames


def config_from_audiocraft(cfg: Mapping[str, Any], path: Path) -> EncodecConfig:
    """From audiocraft's `xp.cfg`, its `${…}` already resolved. `path` is the file to name in errors."""
    fields = _Fields(cfg, path)
    fields.expect("compression_model", "encodec")
    fields.expect("encodec.autoencoder", "seanet")
    fields.expect("encodec.quantizer", "rvq")
    fields.expect("encodec.channels", 1)
    fields.expect("encodec.causal", False)
    fields.expect("encodec.renormalize", False, default=False)
    seanet = fields.value("seanet")
    if not isinstance(seanet, Mapping):
        raise refuse(path, "xp.cfg's seanet is not a mapping")
    encoder = {**seanet, **(seanet.get("encoder") or {})}
    decoder = {**seanet, **(seanet.get("decoder") or {})}
    differing = sorted(key for key in set(seanet) - {"encoder", "decoder"} if encoder[key] != decoder[key])
    if differing:
        raise refuse(path, f"encoder and decoder differ in {', '.join(differing)}; expected one shape for both")
    network = _Fields(decoder, path, "seanet.")
    network.expect("causal", False)
    network.expect("channels", 1)
    network.expect("activation", "ELU")
    network.expect("final_activation", None, default=None)
    if network.value("norm") not in ("weight_norm", "none"):
        raise refuse(path, f"seanet.norm is {network.value('norm')!r}; expected weight_norm or none")
    return EncodecConfig(
        sample_rate_hz=fields.count("encodec.sample_rate"),
        dimension=network.count("dimension"),
        n_filters=network.count("n_filters"),
        ratios=network.counts("ratios"),
        n_residual_layers=network.count("n_residual_layers"),
        kernel_size=network.count("kernel_size"),
        last_kernel_size=network.count("last_kernel_size"),
        residual_kernel_size=network.count("residual_kernel_size"),
        dilation_base=network.count("dilation_base"),
        compress=network.count("compress"),
        lstm_layers=network.count("lstm"),
        has_conv_shortcut=not network.value("true_skip"),
        elu_alpha=float((network.value("activation_params") or {}).get("alpha", 1.0)),
        pad_mode=network.choice("pad_mode", PAD_MODES),
        codebooks=fields.count("rvq.n_q"),
        codebook_size=fields.count("rvq.bins"),
    )


def config_from_transformers(cfg: Mapping[str, Any], path: Path) -> EncodecConfig:
    """From the `config.json` of transformers' EncodecModel. `path` is the file to name in errors."""
    fields = _Fields(cfg, path)
    fields.expect("model_type", "encodec")
    fields.expect("audio_channels", 1)
    fields.expect("use_causal_conv", False)
    fields.expect("normalize", False, default=False)
    fields.expect("norm_type", "weight_norm", default="weight_norm")
    fields.expect("chunk_length_s", None, default=None)
    config = EncodecConfig(
        sample_rate_hz=fields.count("sampling_rate"),
        dimension=fields.count("hidden_size"),
        n_filters=fields.count("num_filters"),
        ratios=fields.counts("upsampling_ratios"),
        n_residual_layers=fields.count("num_residual_layers"),
        kernel_size=fields.count("kernel_size"),
        last_kernel_size=fields.count("last_kernel_size"),
        residual_kernel_size=fields.count("residual_kernel_size"),
        dilation_base=fields.count("dilation_growth_rate"),
        compress=fields.count("compress"),
        lstm_layers=fields.count("num_lstm_layers"),
        has_conv_shortcut=bool(fields.value("use_conv_shortcut")),
        pad_mode=fields.choice("pad_mode", PAD_MODES),
        codebook_size=fields.count("codebook_size"),
    )
    bandwidths = fields.value("target_bandwidths")  # kbit/s, ascending
    if not isinstance(bandwidths, list) or not bandwidths or not isinstance(bandwidths[-1], int | float):
        raise refuse(path, "target_bandwidths is no list of kbit/s")
    # transformers' EncodecConfig.num_quantizers
    bits_per_second = math.ceil(config.frame_rate_hz) * math.ceil(math.log2(config.codebook_size))
    codebooks = int(1000 * float(bandwidths[-1]) // bits_per_second)
    if codebooks < 1:
        raise refuse(path, f"target_bandwidths {bandwidths} leave no codebook at {bits_per_second} bit/s each")
    return replace(config, codebooks=codebooks)


class _Fields:
    """Typed access to a nested mapping; what is missing or of another type is refused by its path."""

    def __init__(self, mapping: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        self._mapping = mapping
        self._path = path
        self._prefix = prefix

    def value(self, name: str) -> Any:
        node: Any = self._mapping
        for key in name.split("."):
            if not isinstance(node, Mapping) or key not in node:
                raise refuse(self._path, f"its configuration has no {self._prefix}{name}; expected an EnCodec model")
            node = node[key]
        return node

    def expect(self, name: str, expected: object, **default: object) -> None:
        try:
            found = self.value(name)
        except FailedPrecondition:
            if not default:
                raise
            found = default["default"]
        if found != expected:
            raise refuse(self._path, f"{self._prefix}{name} is {found!r}; only {expected!r} is supported")

    def count(self, name: str) -> int:
        found = self.value(name)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise refuse(self._path, f"{self._prefix}{name} is {found!r}; expected a whole number from 1")
        return found

    def counts(self, name: str) -> tuple[int, ...]:
        found = self.value(name)
        if not isinstance(found, list) or not found or not all(type(item) is int and item > 1 for item in found):
            raise refuse(self._path, f"{self._prefix}{name} is {found!r}; expected whole numbers from 2")
        return tuple(found)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        found = self.value(name)
        if found not in choices:
            raise refuse(self._path, f"{self._prefix}{name} is {found!r}; expected {' or '.join(choices)}")
        return str(found)
