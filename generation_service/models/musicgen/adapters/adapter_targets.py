"""Which weights of the language model the modules of an adapter belong to.

PEFT records the path that a module has in the model that the adapter was trained with. That is transformers'
`MusicgenForCausalLM`, `MusicgenForConditionalGeneration` (the same after `decoder.`) or their melody variants; or
audiocraft's `LMModel`, where LoRA reaches all layers but the fused projections of attention, which are no modules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from generation_service.models.musicgen.checkpoints.checkpoint import TensorHeader
from generation_service.models.musicgen.checkpoints.config import LmConfig

HEADS, EMBEDDING, TEXT_PROJECTION = "heads", "embedding", "text_projection"
MELODY_PROJECTION = "melody_projection"
"""Can only be merged: the encoded melody is no part of the batch."""

_HUGGING_FACE_LAYER = re.compile(
    r"(?:decoder\.)?model\.decoder\.layers\.(\d+)\."
    r"(?:(self_attn|encoder_attn)\.([qkv]|out)_proj|(fc1|fc2))"
)
_AUDIOCRAFT_LAYER = re.compile(
    r"transformer\.layers\.(\d+)\.(?:(self_attn|cross_attention)\.(out)_proj|(linear1|linear2))"
)
_HEAD = re.compile(r"(?:(?:decoder\.)?lm_heads|linears)\.(\d+)")
_EMBEDDING = re.compile(r"(?:(?:decoder\.)?model\.decoder\.embed_tokens|emb)\.(\d+)")
_MELODY_PROJECTION = re.compile(r"audio_enc_to_dec_proj|condition_provider\.conditioners\.self_wav\.output_proj")
_TEXT_PROJECTION = re.compile(r"enc_to_dec_proj|condition_provider\.conditioners\.([\w-]+)\.output_proj")


@dataclass(frozen=True, slots=True)
class Target:
    """Consecutive rows of a weight that a module of an adapter adds to."""

    weight: str
    """The name in audiocraft's checkpoints."""
    first_row: int
    outputs: int
    inputs: int
    layer: str
    """The linear layer that has these rows: `layer_linear(i, name)`, `HEADS`, a projection, or `EMBEDDING`, whose
    weight is a table [inputs, outputs], so that the transpose of B A is added to it."""
    layer_outputs: int
    layer_inputs: int
    output: int = 0
    """Where the rows are among the layer's outputs."""
    input: int = 0
    """The same for the inputs, the codes of all codebooks, of `EMBEDDING`."""


def layer_linear(index: int, name: str) -> str:
    """The name of a linear layer of a transformer layer. `name` is that of its field in `DecoderLayer`."""
    return f"{index}.{name}"


def find_target(module: str, config: LmConfig, headers: Mapping[str, TensorHeader]) -> Target | None:
    """The target of a module, given by its path; None if the model has no such module.

    `headers` are those of the model's tensors.
    """
    target = _find_target(module, config, headers)
    return target if target and target.weight in headers else None


def _find_target(module: str, config: LmConfig, headers: Mapping[str, TensorHeader]) -> Target | None:
    dim = config.dim
    if match := _HUGGING_FACE_LAYER.fullmatch(module) or _AUDIOCRAFT_LAYER.fullmatch(module):
        index, attention, projection, feed_forward = int(match[1]), match[2], match[3], match[4]
        if feed_forward:
            return _feed_forward(index, feed_forward, config)
        return _attention(index, attention == "self_attn", projection, dim)
    if (match := _HEAD.fullmatch(module)) and (k := int(match[1])) < config.n_q:
        card = config.card
        return Target(f"linears.{k}.weight", 0, card, dim, HEADS, config.n_q * card, dim, k * card)
    if (match := _EMBEDDING.fullmatch(module)) and (k := int(match[1])) < config.n_q:
        codes = config.card + 1
        return Target(f"emb.{k}.weight", 0, dim, codes, EMBEDDING, dim, config.n_q * codes, input=k * codes)
    if (match := _TEXT_PROJECTION.fullmatch(module)) and match[1] in (None, config.condition):
        weight = f"condition_provider.conditioners.{config.condition}.output_proj.weight"
        return _projection(weight, headers, TEXT_PROJECTION)
    if _MELODY_PROJECTION.fullmatch(module):
        return _projection("condition_provider.conditioners.self_wav.output_proj.weight", headers, MELODY_PROJECTION)
    return None


def _projection(weight: str, headers: Mapping[str, TensorHeader], layer: str) -> Target | None:
    if weight not in headers:
        return None
    outputs, inputs = headers[weight].shape
    return Target(weight, 0, outputs, inputs, layer, outputs, inputs)


def _feed_forward(index: int, name: str, config: LmConfig) -> Target:
    dim, hidden, weight = config.dim, config.hidden_dim, f"transformer.layers.{index}.linear"
    if name in ("fc1", "linear1"):
        return Target(f"{weight}1.weight", 0, hidden, dim, layer_linear(index, "up"), hidden, dim)
    return Target(f"{weight}2.weight", 0, dim, hidden, layer_linear(index, "down"), dim, hidden)


def _attention(index: int, is_self: bool, projection: str, dim: int) -> Target:
    weight = f"transformer.layers.{index}.{'self_attn' if is_self else 'cross_attention'}."
    if projection == "out":
        name = layer_linear(index, "out" if is_self else "cross_out")
        return Target(f"{weight}out_proj.weight", 0, dim, dim, name, dim, dim)
    part = "qkv".index(projection)
    if is_self:
        name, outputs, output = "qkv", 3 * dim, part * dim
    elif part == 0:
        name, outputs, output = "cross_q", dim, 0
    else:
        name, outputs, output = "cross_kv", 2 * dim, (part - 1) * dim
    return Target(f"{weight}in_proj_weight", part * dim, dim, dim, layer_linear(index, name), outputs, dim, output)
