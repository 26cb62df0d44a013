"""The hyperparameters of what is prepended to the codes: the melody of MusicGen-melody, the style of MusicGen-Style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint
from generation_service.models.musicgen.checkpoints.config_fields import ConfigFields

_STYLE_TRANSFORMERS = {"xsmall": (256, 8, 4), "default": (512, 8, 8), "large": (1024, 16, 24), "none": (512, 8, 0)}
"""audiocraft's `transformer_scale` → width, heads and layers."""


@dataclass(frozen=True, slots=True)
class ChromaConfig:
    """audiocraft's parameters of `ChromaExtractor`."""

    sample_rate_hz: int
    n_chroma: int = 12
    window_length: int = 1 << 14
    """`winlen`, which is 2 ** `radix2_exp` unless given."""
    fft_length: int = 1 << 14
    hop_frames: int = 1 << 12
    argmax: bool = True
    """Whether the strongest pitch class alone counts, with 1."""

    def count_frames(self, frames: int) -> int:
        """How many frames of chroma so many frames of audio have."""
        return 1 + max(frames, self.fft_length) // self.hop_frames


@dataclass(frozen=True, slots=True)
class MelodyConfig:
    """How a melody becomes a prefix."""

    name: str
    """The conditioner's name in audiocraft's checkpoints."""
    chroma: ChromaConfig
    length: int
    """Frames of chroma in every window: those of the clips that the model was trained on."""
    max_frames: int = 0
    """Frames of audio that are read where a piece has one window; 0 for all. transformers reads `chunk_length`, and
    audiocraft all, which differs in the last two frames of chroma."""


@dataclass(frozen=True, slots=True)
class StyleConfig:
    """audiocraft's parameters of `StyleConditioner`."""

    name: str
    feature_model: Literal["mert", "encodec"]
    sample_rate_hz: int
    excerpt_seconds: float
    """`length`: how much of the audio is read."""
    feature_codebooks: int
    """`encodec_n_q`: the codebooks of EnCodec that are read."""
    dim: int
    num_heads: int
    num_layers: int
    codebooks: int
    """`n_q_out`"""
    default_codebooks: int
    """`eval_q`: how many are used unless a request says otherwise. More follow the excerpt more closely."""
    codebook_size: int
    """`bins`"""
    downsampling: int
    """`ds_factor`: one of so many frames is kept."""
    has_batch_norm: bool


def parse_prefix(fields: ConfigFields, names: list[str]) -> tuple[MelodyConfig | None, StyleConfig | None]:
    """names: `fuser.prepend` without the text. Raises FailedPrecondition for a conditioner of another kind."""
    melody: MelodyConfig | None = None
    style: StyleConfig | None = None
    for name in names:
        model = fields.value(f"conditioners.{name}.model")
        if model == "chroma_stem" and melody is None:
            melody = _parse_melody(fields, name)
        elif model == "style" and style is None:
            style = _parse_style(fields, name)
        else:
            problem = f"conditioners.{name}.model is {model!r}; expected one chroma_stem or one style"
            raise invalid_checkpoint(fields.path, problem)
    return melody, style


def _parse_melody(fields: ConfigFields, name: str) -> MelodyConfig:
    prefix = f"conditioners.{name}.chroma_stem."
    fields.expect(f"{prefix}norm", float("inf"), float("inf"))
    window = fields.value(f"{prefix}winlen", None) or 1 << fields.count(f"{prefix}radix2_exp")
    chroma = ChromaConfig(
        sample_rate_hz=fields.count(f"{prefix}sample_rate"),
        n_chroma=fields.count(f"{prefix}n_chroma"),
        window_length=window,
        fft_length=fields.value(f"{prefix}nfft", None) or window,
        hop_frames=fields.value(f"{prefix}winhop", None) or window // 4,
        argmax=bool(fields.value(f"{prefix}argmax", False)),
    )
    fields.expect(f"{prefix}sample_rate", fields.count("sample_rate"))
    return MelodyConfig(name, chroma, chroma.count_frames(_window_frames(fields, chroma.sample_rate_hz)))


def _window_frames(fields: ConfigFields, sample_rate_hz: int) -> int:
    return int(sample_rate_hz * fields.number("dataset.segment_duration"))


def _parse_style(fields: ConfigFields, name: str) -> StyleConfig:
    prefix = f"conditioners.{name}.style."
    feature_model = fields.choice(f"{prefix}model_name", ("mert", "encodec"))
    scale = fields.value(f"{prefix}transformer_scale", "default")
    if scale not in _STYLE_TRANSFORMERS:
        raise invalid_checkpoint(
            fields.path, f"{prefix}transformer_scale is {scale!r}; expected {' or '.join(_STYLE_TRANSFORMERS)}"
        )
    dim, num_heads, num_layers = _STYLE_TRANSFORMERS[scale]
    codebooks = fields.value(f"{prefix}n_q_out", 6)
    default_codebooks = fields.value(f"{prefix}eval_q", 3)
    if not 1 <= default_codebooks <= codebooks:
        problem = f"{prefix}eval_q is {default_codebooks!r}; expected 1 to {prefix}n_q_out, {codebooks!r}"
        raise invalid_checkpoint(fields.path, problem)
    fields.expect(f"{prefix}sample_rate", fields.count("sample_rate"))
    return StyleConfig(
        name=name,
        feature_model="mert" if feature_model == "mert" else "encodec",
        sample_rate_hz=fields.count(f"{prefix}sample_rate"),
        excerpt_seconds=fields.number(f"{prefix}length"),
        feature_codebooks=fields.value(f"{prefix}encodec_n_q", 4),
        dim=dim,
        num_heads=num_heads,
        num_layers=num_layers,
        codebooks=codebooks,
        default_codebooks=default_codebooks,
        codebook_size=fields.value(f"{prefix}bins", 1024),
        downsampling=fields.value(f"{prefix}ds_factor", 15),
        has_batch_norm=bool(fields.value(f"{prefix}batch_norm", True)),
    )
