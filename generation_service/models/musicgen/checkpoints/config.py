"""The hyperparameters of a MusicGen or AudioGen language model, from the `xp.cfg` of its checkpoint.

A setting that the decode loop does not support is rejected by name: weights loaded into the wrong network would produce
noise instead of an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint, invalid_checkpoint
from generation_service.models.musicgen.checkpoints.config_fields import ConfigFields
from generation_service.models.musicgen.checkpoints.prefixes.prefix_config import (
    MAX_TEXT_TOKENS,
    MelodyConfig,
    StyleConfig,
    parse_prefix,
)

_SUPPORTED_TRANSFORMER: dict[str, tuple[object, object]] = {
    "norm": ("layer_norm", "layer_norm"),
    "norm_first": (True, False),
    "activation": ("gelu", "relu"),
    "bias_ff": (False, True),
    "bias_attn": (False, True),
    "bias_proj": (False, True),
    "past_context": (None, None),
    "layer_scale": (None, None),
    "positional_embedding": ("sin", "sin"),
    "qk_layer_norm": (False, False),
    "qk_layer_norm_cross": (False, False),
    "kv_repeat": (1, 1),
}
"""`transformer_lm` key → the value that every published text-to-music model has, and audiocraft's default."""
MASKED_LM = "transformer_lm_magnet"
"""The `lm_model` of MAGNeT."""
STRIDE_SHARES = {"MusicGen": 0.6, "AudioGen": 0.2}
_MAX_CODEBOOKS = 64
_MAX_WINDOW_SECONDS = 600.0
"""The memory for a request grows with its window, which for published models is at most 30 s."""


@dataclass(frozen=True, slots=True)
class LmConfig:
    """Hyperparameters, under audiocraft's names where it has them."""

    dim: int
    num_heads: int
    num_layers: int
    hidden_dim: int
    n_q: int
    """Number of codebooks, K in shapes; for stereo, those of both channels."""
    card: int
    """Codes in a codebook. The code `card` itself stands for "no code"."""
    delays: tuple[int, ...]
    """The delay of each codebook in frames: [K], ascending."""
    max_period: float
    positional_scale: float
    t5_name: str
    condition: str
    """Name of the conditioner that encodes the text."""
    channels: int
    sample_rate_hz: int
    max_duration_seconds: float
    """Length of one window, which is the length of the clips that the model was trained on."""
    family: str = "MusicGen"
    """"MusicGen", or "AudioGen" for sounds; they differ in nothing else but `stride_share`."""
    has_cross_attention: bool = True
    """If not, the text is the last part of the prefix, as in MusicGen-melody."""
    melody: MelodyConfig | None = None
    style: StyleConfig | None = None

    @property
    def stride_share(self) -> float:
        """Which part of a window comes before the next one: audiocraft's `extend_stride`, which is 18 of 30 seconds for
        MusicGen and 2 of 10 for AudioGen."""
        return STRIDE_SHARES[self.family]

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def max_delay(self) -> int:
        return max(self.delays)

    @property
    def max_prefix_positions(self) -> int:
        """The positions before the codes, at most."""
        if self.has_cross_attention:
            return 0
        melody = 0 if self.melody is None else self.melody.length
        style = 0 if self.style is None else self.style.max_length
        return melody + style + MAX_TEXT_TOKENS


def parse_lm_config(checkpoint: Checkpoint) -> LmConfig:
    """Raises FailedPrecondition if the checkpoint is of another kind of model."""
    fields = ConfigFields(checkpoint.config, checkpoint.path, "a MusicGen language model")
    if "lm_model" not in checkpoint.config and "compression_model" in checkpoint.config:
        raise invalid_checkpoint(checkpoint.path, "it has a codec, not a language model; are the files swapped?")
    fields.expect("lm_model", "transformer_lm")
    return _parse_transformer(fields, is_causal=True)


def parse_masked_lm_config(checkpoint: Checkpoint) -> LmConfig:
    """The same for MAGNeT's transformer, which is not causal and whose codebooks are parallel."""
    fields = ConfigFields(checkpoint.config, checkpoint.path, "a MAGNeT language model")
    fields.expect("lm_model", MASKED_LM)
    return _parse_transformer(fields, is_causal=False)


def _parse_transformer(fields: ConfigFields, *, is_causal: bool) -> LmConfig:
    for key, (expected, default) in _SUPPORTED_TRANSFORMER.items():
        fields.expect(f"transformer_lm.{key}", expected, default)
    fields.expect("transformer_lm.causal", is_causal, False)
    dim = fields.count("transformer_lm.dim")
    num_heads = fields.count("transformer_lm.num_heads")
    if dim % num_heads or dim % 2:
        raise invalid_checkpoint(
            fields.path, f"transformer_lm.dim is {dim}, which is not divisible by 2 and by the {num_heads} heads"
        )
    n_q = fields.count("transformer_lm.n_q", _MAX_CODEBOOKS)
    condition, prepended = _parse_condition(fields)
    melody, style = parse_prefix(fields, [name for name in prepended if name != condition])
    return LmConfig(
        dim=dim,
        num_heads=num_heads,
        num_layers=fields.count("transformer_lm.num_layers"),
        hidden_dim=int(dim * fields.number("transformer_lm.hidden_scale", 4)),
        n_q=n_q,
        card=fields.count("transformer_lm.card"),
        delays=_parse_delays(fields, n_q) if is_causal else _parse_parallel(fields, n_q),
        max_period=fields.number("transformer_lm.max_period", 10_000),
        positional_scale=fields.number("transformer_lm.positional_scale", 1),
        t5_name=str(fields.value(f"conditioners.{condition}.t5.name")),
        condition=condition,
        channels=_parse_channels(fields),
        sample_rate_hz=fields.count("sample_rate"),
        max_duration_seconds=_parse_window(fields),
        family="AudioGen" if fields.value("solver", None) == "audiogen" else "MusicGen",
        has_cross_attention=condition not in prepended,
        melody=melody,
        style=style,
    )


def _parse_window(fields: ConfigFields) -> float:
    seconds = fields.number("dataset.segment_duration")
    if seconds > _MAX_WINDOW_SECONDS:
        problem = f"dataset.segment_duration is {seconds:g} seconds; expected at most {_MAX_WINDOW_SECONDS:g}"
        raise invalid_checkpoint(fields.path, problem)
    return seconds


def _parse_condition(fields: ConfigFields) -> tuple[str, list[str]]:
    """The text condition, and what is prepended, in order: the text is in it or cross-attention reads it."""
    cross, prepended = fields.value("fuser.cross"), fields.value("fuser.prepend", None) or []
    if not isinstance(cross, list) or not isinstance(prepended, list):
        problem = f"fuser.cross is {cross!r} and fuser.prepend {prepended!r}; expected lists"
        raise invalid_checkpoint(fields.path, problem)
    for method in ("sum", "input_interpolate"):
        if fields.value(f"fuser.{method}", None):
            problem = f"the model is conditioned through fuser.{method}; only cross and prepend are supported"
            raise invalid_checkpoint(fields.path, problem)
    fields.expect("fuser.cross_attention_pos_emb", False, False)
    if len(cross) != 1 and (cross or len(prepended) < 2):
        problem = f"fuser.cross is {cross!r}; expected exactly one text condition, or one at the end of fuser.prepend"
        raise invalid_checkpoint(fields.path, problem)
    name = str((cross or prepended)[-1])
    fields.expect(f"conditioners.{name}.model", "t5")
    fields.expect(f"conditioners.{name}.t5.finetune", False, False)
    fields.expect(f"conditioners.{name}.t5.normalize_text", False, False)
    return name, [str(own) for own in prepended]


def _parse_delays(fields: ConfigFields, n_q: int) -> tuple[int, ...]:
    fields.expect("codebooks_pattern.modeling", "delay")
    fields.expect("codebooks_pattern.delay.flatten_first", 0, 0)
    fields.expect("codebooks_pattern.delay.empty_initial", 0, 0)
    delays = fields.value("codebooks_pattern.delay.delays", None)
    if delays is None:
        delays = list(range(n_q))
    if (
        not isinstance(delays, list)
        or len(delays) != n_q
        or not all(type(delay) is int and delay >= 0 for delay in delays)
        or any(first > second for first, second in pairwise(delays))
    ):
        raise invalid_checkpoint(
            fields.path, f"codebooks_pattern.delay.delays is {delays!r}; expected {n_q} ascending integers"
        )
    return tuple(delays)


def _parse_parallel(fields: ConfigFields, n_q: int) -> tuple[int, ...]:
    fields.expect("codebooks_pattern.modeling", "parallel")
    return (0,) * n_q


def _parse_channels(fields: ConfigFields) -> int:
    if not fields.value("interleave_stereo_codebooks.use", False):
        return 1
    fields.expect("interleave_stereo_codebooks.per_timestep", False, False)
    return 2
