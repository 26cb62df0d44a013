"""The hyperparameters of what is prepended to the codes: the melody of MusicGen-melody, the style of MusicGen-Style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint
from generation_service.models.musicgen.checkpoints.config_fields import ConfigFields

MAX_TEXT_TOKENS = 512
"""The longest text that is read before the codes."""
MIN_STYLE_SECONDS, MAX_STYLE_SECONDS = 1.5, 4.5
"""The excerpts that MusicGen-Style was trained on: audiocraft's `varying_lengths`."""
_MAX_RADIX2_EXP, _MAX_CHROMA, _MAX_FRAMES = 20, 96, 1 << 24
_MAX_CODEBOOKS, _MAX_CODEBOOK_SIZE = 64, 1 << 16
"""Far above those of any model, and low enough that nothing takes much memory."""
_MAX_FEATURE_RATE_HZ = 75
"""MERT's; EnCodec's is 50."""
_STYLE_TRANSFORMERS = {"xsmall": (256, 8, 4), "default": (512, 8, 8), "large": (1024, 16, 24), "none": (512, 8, 0)}
"""audiocraft's `transformer_scale` → width, heads and layers."""
_PRETRAINED = "//pretrained/"


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
    encodec_name: str
    """The EnCodec model on the Hugging Face hub whose codes are read; empty for MERT."""
    feature_codebooks: int
    """`encodec_n_q`: how many of its codebooks."""
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

    @property
    def max_length(self) -> int:
        """Positions of the prefix of the longest excerpt, at most."""
        return int(MAX_STYLE_SECONDS * _MAX_FEATURE_RATE_HZ) // self.downsampling + 1


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
    """Besides audiocraft's fields, there may be transformers' `chroma_length` and `max_frames`."""
    prefix = f"conditioners.{name}.chroma_stem."
    fields.expect(f"{prefix}norm", float("inf"), float("inf"))
    fields.expect(f"{prefix}sample_rate", fields.count("sample_rate"))
    window = _count(fields, f"{prefix}winlen", 0) or 1 << _count(fields, f"{prefix}radix2_exp", 12, _MAX_RADIX2_EXP)
    chroma = ChromaConfig(
        sample_rate_hz=fields.count(f"{prefix}sample_rate"),
        n_chroma=fields.count(f"{prefix}n_chroma", _MAX_CHROMA),
        window_length=window,
        fft_length=_count(fields, f"{prefix}nfft", window),
        hop_frames=_count(fields, f"{prefix}winhop", max(1, window // 4)),
        argmax=bool(fields.value(f"{prefix}argmax", False)),
    )
    if chroma.fft_length < chroma.window_length:
        problem = f"{prefix}nfft is {chroma.fft_length}; expected at least the window's {chroma.window_length}"
        raise invalid_checkpoint(fields.path, problem)
    frames = int(chroma.sample_rate_hz * fields.number("dataset.segment_duration"))
    return MelodyConfig(
        name=name,
        chroma=chroma,
        length=_count(fields, f"{prefix}chroma_length", chroma.count_frames(frames)),
        max_frames=_count(fields, f"{prefix}max_frames", 0),
    )


def _parse_style(fields: ConfigFields, name: str) -> StyleConfig:
    prefix = f"conditioners.{name}.style."
    feature_model: Literal["mert", "encodec"] = (
        "mert" if fields.choice(f"{prefix}model_name", ("mert", "encodec")) == "mert" else "encodec"
    )
    scale = fields.value(f"{prefix}transformer_scale", "default")
    if not isinstance(scale, str) or scale not in _STYLE_TRANSFORMERS:
        raise invalid_checkpoint(
            fields.path, f"{prefix}transformer_scale is {scale!r}; expected {' or '.join(_STYLE_TRANSFORMERS)}"
        )
    dim, num_heads, num_layers = _STYLE_TRANSFORMERS[scale]
    encodec = str(fields.value(f"{prefix}encodec_checkpoint", "")) if feature_model == "encodec" else ""
    if feature_model == "encodec" and not encodec.startswith(_PRETRAINED):
        problem = f"{prefix}encodec_checkpoint is {encodec!r}; only {_PRETRAINED}NAME is supported"
        raise invalid_checkpoint(fields.path, problem)
    codebooks = _count(fields, f"{prefix}n_q_out", 6, _MAX_CODEBOOKS)
    fields.expect(f"{prefix}sample_rate", fields.count("sample_rate"))
    return StyleConfig(
        name=name,
        feature_model=feature_model,
        sample_rate_hz=fields.count(f"{prefix}sample_rate"),
        excerpt_seconds=fields.number(f"{prefix}length"),
        encodec_name=encodec.removeprefix(_PRETRAINED),
        feature_codebooks=_count(fields, f"{prefix}encodec_n_q", 4, _MAX_CODEBOOKS),
        dim=dim,
        num_heads=num_heads,
        num_layers=num_layers,
        codebooks=codebooks,
        default_codebooks=_count(fields, f"{prefix}eval_q", 3, codebooks),
        codebook_size=_count(fields, f"{prefix}bins", 1024, _MAX_CODEBOOK_SIZE),
        downsampling=_count(fields, f"{prefix}ds_factor", 15),
        has_batch_norm=bool(fields.value(f"{prefix}batch_norm", True)),
    )


def _count(fields: ConfigFields, name: str, default: int, at_most: int = _MAX_FRAMES) -> int:
    """A number that may be missing or null."""
    return default if fields.value(name, None) is None else fields.count(name, at_most)
