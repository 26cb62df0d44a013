"""The hyperparameters of a MAGNeT model: those of its transformer, of its masks, and of its iterations."""

from __future__ import annotations

from dataclasses import dataclass

from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint, invalid_checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig, parse_masked_lm_config
from generation_service.models.musicgen.checkpoints.config_fields import ConfigFields

DEFAULT_ITERATIONS = (20, 10, 10, 10)
"""audiocraft's `decoding_steps`."""
DEFAULT_TEMPERATURE, DEFAULT_TOP_P = 3.0, 0.9
DEFAULT_MAX_GUIDANCE, DEFAULT_MIN_GUIDANCE = 10.0, 1.0


@dataclass(frozen=True, slots=True)
class MagnetConfig:
    """Hyperparameters, under audiocraft's names where it has them."""

    lm: LmConfig
    """The transformer, which is not causal. Its codebooks are not delayed."""
    subcodes_context: int | None
    """The frames before and after its own that a code of the second codebook or a later one attends to; None: all."""
    span_len: int
    """Frames that are masked together."""
    decoding_steps: tuple[int, ...]
    """The iterations of each codebook: [K]."""
    temperature: float
    """At the first iteration of a codebook. It falls linearly."""
    top_p: float
    max_guidance: float
    """The classifier-free guidance scale while everything is masked. It falls with the share that is masked."""
    min_guidance: float

    @property
    def total_steps(self) -> int:
        """The iterations of a request."""
        return sum(self.decoding_steps)


def parse_magnet_config(checkpoint: Checkpoint) -> MagnetConfig:
    """What its authors generated with is in the checkpoint (`generate.lm`), else audiocraft's defaults apply. Raises
    FailedPrecondition if the checkpoint is of another kind of model."""
    fields = ConfigFields(checkpoint.config, checkpoint.path, "a MAGNeT language model")
    lm = parse_masked_lm_config(checkpoint)
    context = fields.value("transformer_lm.subcodes_context", 5)
    if type(context) is not int or context < -1:
        problem = f"transformer_lm.subcodes_context is {context!r}; expected a number of frames, or -1 for all"
        raise invalid_checkpoint(checkpoint.path, problem)
    span_len = fields.count("masking.span_len")
    if span_len < 2:
        raise invalid_checkpoint(checkpoint.path, "masking.span_len is 1; only spans of several frames are supported")
    fields.expect("generate.lm.span_arrangement", "nonoverlap", "nonoverlap")
    fields.expect("generate.lm.span_scoring", "max", "max")
    return MagnetConfig(
        lm=lm,
        subcodes_context=None if context == -1 else context,
        span_len=span_len,
        decoding_steps=_parse_steps(fields, lm.n_q),
        temperature=fields.number("generate.lm.temp", DEFAULT_TEMPERATURE),
        top_p=_parse_top_p(fields),
        max_guidance=fields.number("generate.lm.max_cfg_coef", DEFAULT_MAX_GUIDANCE),
        min_guidance=fields.number("generate.lm.min_cfg_coef", DEFAULT_MIN_GUIDANCE),
    )


def _parse_top_p(fields: ConfigFields) -> float:
    top_p = fields.value("generate.lm.top_p", DEFAULT_TOP_P)
    if type(top_p) not in (int, float) or not 0 <= top_p <= 1:
        raise invalid_checkpoint(fields.path, f"generate.lm.top_p is {top_p!r}; expected a number from 0 to 1")
    return float(top_p)


def _parse_steps(fields: ConfigFields, n_q: int) -> tuple[int, ...]:
    steps = fields.value("generate.lm.decoding_steps", list(DEFAULT_ITERATIONS))
    if not isinstance(steps, list) or len(steps) != n_q or not all(type(n) is int and n > 0 for n in steps):
        raise invalid_checkpoint(
            fields.path, f"generate.lm.decoding_steps is {steps!r}; expected the iterations of each of {n_q} codebooks"
        )
    return tuple(steps)
