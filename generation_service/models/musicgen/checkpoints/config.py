"""The shape of a MusicGen language model, from the `xp.cfg` of its checkpoint.

What the decode loop does not know is refused by name, since weights that load into the wrong network make noise instead
of an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from generation_service.models.musicgen.checkpoints.audiocraft_file import Checkpoint, refuse

_TRANSFORMER: dict[str, tuple[object, object]] = {
    "norm": ("layer_norm", "layer_norm"),
    "norm_first": (True, False),
    "activation": ("gelu", "relu"),
    "bias_ff": (False, True),
    "bias_attn": (False, True),
    "bias_proj": (False, True),
    "causal": (True, False),
    "past_context": (None, None),
    "layer_scale": (None, None),
    "positional_embedding": ("sin", "sin"),
    "qk_layer_norm": (False, False),
    "qk_layer_norm_cross": (False, False),
    "kv_repeat": (1, 1),
}
"""`transformer_lm` of every text-to-music model that was published; and what audiocraft takes where it says nothing."""


@dataclass(frozen=True, slots=True)
class LmConfig:
    """Hyperparameters; the names are audiocraft's where it has one."""

    dim: int
    num_heads: int
    num_layers: int
    hidden_dim: int
    n_q: int
    """Codebooks, K in shapes; both channels' for stereo."""
    card: int
    """Codes in a codebook. The code `card` itself stands for "none"."""
    delays: tuple[int, ...]
    """[K], in frames, ascending."""
    max_period: float
    positional_scale: float
    t5_name: str
    condition: str
    """The attribute that the text conditions."""
    channels: int
    sample_rate_hz: int
    max_duration_seconds: float
    """Of one window: what it was trained on."""

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def max_delay(self) -> int:
        return max(self.delays)


def lm_config(checkpoint: Checkpoint) -> LmConfig:
    """Raises FailedPrecondition for a checkpoint of another kind of model."""
    fields = _Fields(checkpoint.config, checkpoint.path)
    fields.expect("lm_model", "transformer_lm")
    for key, (expected, default) in _TRANSFORMER.items():
        fields.expect(f"transformer_lm.{key}", expected, default)
    dim = fields.count("transformer_lm.dim")
    num_heads = fields.count("transformer_lm.num_heads")
    if dim % num_heads or dim % 2:
        raise refuse(checkpoint.path, f"transformer_lm.dim {dim} is not divided by 2 and by {num_heads} heads")
    n_q = fields.count("transformer_lm.n_q")
    condition = _condition(fields)
    return LmConfig(
        dim=dim,
        num_heads=num_heads,
        num_layers=fields.count("transformer_lm.num_layers"),
        hidden_dim=int(dim * fields.number("transformer_lm.hidden_scale", 4)),
        n_q=n_q,
        card=fields.count("transformer_lm.card"),
        delays=_delays(fields, n_q),
        max_period=fields.number("transformer_lm.max_period", 10_000),
        positional_scale=fields.number("transformer_lm.positional_scale", 1),
        t5_name=str(fields.value(f"conditioners.{condition}.t5.name")),
        condition=condition,
        channels=_channels(fields),
        sample_rate_hz=fields.count("sample_rate"),
        max_duration_seconds=fields.number("dataset.segment_duration"),
    )


def _condition(fields: _Fields) -> str:
    crossed = fields.value("fuser.cross")
    if not isinstance(crossed, list) or len(crossed) != 1:
        raise refuse(fields.path, f"fuser.cross is {crossed!r}; expected one text condition")
    for method in ("sum", "prepend", "input_interpolate"):
        if fields.value(f"fuser.{method}", None):
            raise refuse(fields.path, f"it is conditioned by fuser.{method} (a melody model?); expected text only")
    fields.expect("fuser.cross_attention_pos_emb", False, False)
    name = str(crossed[0])
    fields.expect(f"conditioners.{name}.model", "t5")
    fields.expect(f"conditioners.{name}.t5.finetune", False, False)
    fields.expect(f"conditioners.{name}.t5.normalize_text", False, False)
    return name


def _delays(fields: _Fields, n_q: int) -> tuple[int, ...]:
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
        raise refuse(fields.path, f"codebooks_pattern.delay.delays is {delays!r}; expected {n_q} ascending numbers")
    return tuple(delays)


def _channels(fields: _Fields) -> int:
    if not fields.value("interleave_stereo_codebooks.use", False):
        return 1
    fields.expect("interleave_stereo_codebooks.per_timestep", False, False)
    return 2


_REQUIRED = object()


class _Fields:
    """Typed access to a nested mapping; what is missing or of another type is refused by its path."""

    def __init__(self, mapping: Mapping[str, Any], path: Path) -> None:
        self._mapping = mapping
        self.path = path

    def value(self, field: str, default: object = _REQUIRED) -> Any:
        node: Any = self._mapping
        for key in field.split("."):
            if not isinstance(node, Mapping) or key not in node:
                if default is _REQUIRED:
                    raise refuse(self.path, f"xp.cfg has no {field}; expected a MusicGen language model")
                return default
            node = node[key]
        return node

    def expect(self, field: str, expected: object, default: object = _REQUIRED) -> None:
        found = self.value(field, default)
        if found != expected:
            raise refuse(self.path, f"{field} is {found!r}; only {expected!r} is supported")

    def count(self, field: str) -> int:
        found = self.value(field)
        if type(found) is not int or found < 1:
            raise refuse(self.path, f"{field} is {found!r}; expected a whole number from 1")
        return found

    def number(self, field: str, default: object = _REQUIRED) -> float:
        found = self.value(field, default)
        if type(found) not in (int, float) or found <= 0:
            raise refuse(self.path, f"{field} is {found!r}; expected a number above 0")
        return float(found)
