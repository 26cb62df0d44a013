"""The hyperparameters of an EnCodec model, from audiocraft's `xp.cfg` or transformers' `config.json`.

Only what MusicGen's codecs use is supported: one channel, not causal, weight norm or none, ELU, LSTM. Anything else is
rejected by name: weights loaded into the wrong network would produce noise instead of an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint
from generation_service.models.musicgen.checkpoints.config_fields import ConfigFields

PAD_MODES = ("reflect", "constant")
_MAX_BANDWIDTH = 1e6
_MAX_LAYERS = 64
"""Of residual units, LSTM layers and codebooks; those of real models have at most 32."""

_EXPECTED_MODEL = "an EnCodec model"


@dataclass(frozen=True, slots=True)
class EncodecConfig:
    """Hyperparameters under audiocraft's names. The defaults are those of EnCodec 32 kHz, which MusicGen uses."""

    sample_rate_hz: int = 32_000
    dimension: int = 128
    n_filters: int = 64
    ratios: tuple[int, ...] = (8, 5, 4, 4)
    """Upsampling factors in the decoder's order; the encoder uses them in reverse."""
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
        """Audio frames per frame of codes."""
        return math.prod(self.ratios)

    @property
    def frame_rate_hz(self) -> float:
        """Frames of codes per second."""
        return self.sample_rate_hz / self.hop_frames


def parse_audiocraft_config(cfg: Mapping[str, Any], path: Path) -> EncodecConfig:
    """From audiocraft's `xp.cfg` with its `${…}` already resolved. Errors name the file `path`."""
    fields = ConfigFields(cfg, path, _EXPECTED_MODEL)
    fields.expect("compression_model", "encodec")
    fields.expect("encodec.autoencoder", "seanet")
    fields.expect("encodec.quantizer", "rvq")
    fields.expect("encodec.channels", 1)
    fields.expect("encodec.causal", False)
    fields.expect("encodec.renormalize", False, False)
    seanet = fields.value("seanet")
    if not isinstance(seanet, Mapping):
        raise invalid_checkpoint(path, "seanet in xp.cfg is not a mapping")
    sides = [seanet.get(side) or {} for side in ("encoder", "decoder")]
    if not all(isinstance(side, Mapping) for side in sides):
        raise invalid_checkpoint(path, "seanet.encoder or seanet.decoder in xp.cfg is not a mapping")
    encoder, decoder = ({**seanet, **side} for side in sides)
    differing = sorted(key for key in set(seanet) - {"encoder", "decoder"} if encoder[key] != decoder[key])
    if differing:
        raise invalid_checkpoint(
            path, f"encoder and decoder differ in {', '.join(differing)}; expected the same settings for both"
        )
    network = ConfigFields(decoder, path, _EXPECTED_MODEL, "seanet.")
    network.expect("causal", False)
    network.expect("channels", 1)
    network.expect("activation", "ELU")
    network.expect("final_activation", None, None)
    network.choice("norm", ("weight_norm", "none"))
    return EncodecConfig(
        sample_rate_hz=fields.count("encodec.sample_rate"),
        dimension=network.count("dimension"),
        n_filters=network.count("n_filters"),
        ratios=network.factors("ratios"),
        n_residual_layers=network.count("n_residual_layers", _MAX_LAYERS),
        kernel_size=network.count("kernel_size"),
        last_kernel_size=network.count("last_kernel_size"),
        residual_kernel_size=network.count("residual_kernel_size"),
        dilation_base=network.count("dilation_base"),
        compress=network.count("compress"),
        lstm_layers=network.count("lstm", _MAX_LAYERS),
        has_conv_shortcut=not network.value("true_skip"),
        elu_alpha=network.number("activation_params.alpha", 1.0),
        pad_mode=network.choice("pad_mode", PAD_MODES),
        codebooks=fields.count("rvq.n_q", _MAX_LAYERS),
        codebook_size=fields.count("rvq.bins"),
    )


def parse_transformers_config(cfg: Mapping[str, Any], path: Path) -> EncodecConfig:
    """From the `config.json` of transformers' EncodecModel. Errors name the file `path`."""
    fields = ConfigFields(cfg, path, _EXPECTED_MODEL)
    fields.expect("model_type", "encodec")
    fields.expect("audio_channels", 1)
    fields.expect("use_causal_conv", False)
    fields.expect("normalize", False, False)
    fields.expect("norm_type", "weight_norm", "weight_norm")
    fields.expect("chunk_length_s", None, None)
    config = EncodecConfig(
        sample_rate_hz=fields.count("sampling_rate"),
        dimension=fields.count("hidden_size"),
        n_filters=fields.count("num_filters"),
        ratios=fields.factors("upsampling_ratios"),
        n_residual_layers=fields.count("num_residual_layers", _MAX_LAYERS),
        kernel_size=fields.count("kernel_size"),
        last_kernel_size=fields.count("last_kernel_size"),
        residual_kernel_size=fields.count("residual_kernel_size"),
        dilation_base=fields.count("dilation_growth_rate"),
        compress=fields.count("compress"),
        lstm_layers=fields.count("num_lstm_layers", _MAX_LAYERS),
        has_conv_shortcut=bool(fields.value("use_conv_shortcut")),
        pad_mode=fields.choice("pad_mode", PAD_MODES),
        codebook_size=fields.count("codebook_size"),
    )
    bandwidths = fields.value("target_bandwidths")  # kbit/s, ascending
    if not isinstance(bandwidths, list) or not bandwidths or not _is_bandwidth(bandwidths[-1]):
        raise invalid_checkpoint(path, "target_bandwidths is not a list of bandwidths in kbit/s")
    # As transformers' EncodecConfig.num_quantizers computes it.
    bits_per_second = math.ceil(config.frame_rate_hz) * max(1, math.ceil(math.log2(config.codebook_size)))
    codebooks = int(1000 * float(bandwidths[-1]) // bits_per_second)
    if not 1 <= codebooks <= _MAX_LAYERS:
        raise invalid_checkpoint(
            path,
            f"target_bandwidths is {bandwidths}, too little for one codebook of {bits_per_second} bit/s, or too much",
        )
    return replace(config, codebooks=codebooks)


def _is_bandwidth(value: object) -> bool:
    return type(value) in (int, float) and 0 < value <= _MAX_BANDWIDTH  # type: ignore[operator]
