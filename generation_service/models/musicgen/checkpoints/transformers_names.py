"""The names of the language model's tensors in transformers' MusicGen, and those that audiocraft has for them.

Source: transformers 5.23, `models/musicgen` and `models/musicgen_melody`, and their conversion scripts. transformers
projects queries, keys and values by three matrices, audiocraft by one that has them in this order.
"""

from __future__ import annotations

import re

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
"""The parts of audiocraft's `in_proj_weight`."""
_LAYER = re.compile(r"(?:decoder\.)?model\.decoder\.layers\.(\d+)\.(.+)")
_LAYER_NAMES = {
    "self_attn.out_proj.weight": "self_attn.out_proj.weight",
    "encoder_attn.out_proj.weight": "cross_attention.out_proj.weight",
    "fc1.weight": "linear1.weight",
    "fc2.weight": "linear2.weight",
    "self_attn_layer_norm.weight": "norm1.weight",
    "self_attn_layer_norm.bias": "norm1.bias",
    "encoder_attn_layer_norm.weight": "norm_cross.weight",
    "encoder_attn_layer_norm.bias": "norm_cross.bias",
    "final_layer_norm.weight": "norm2.weight",
    "final_layer_norm.bias": "norm2.bias",
}
_ATTENTION = {"self_attn": "self_attn", "encoder_attn": "cross_attention"}
_PROJECTION = re.compile(rf"(self_attn|encoder_attn)\.({'|'.join(PROJECTIONS)})\.weight")
_CODEBOOK = re.compile(r"(?:decoder\.)?(model\.decoder\.embed_tokens|lm_heads)\.(\d+)\.weight")
_CODEBOOK_NAMES = {"model.decoder.embed_tokens": "emb", "lm_heads": "linears"}
_OUT_NORM = re.compile(r"(?:decoder\.)?model\.decoder\.layer_norm\.(weight|bias)")
_PROJECTIONS = re.compile(r"(enc_to_dec_proj|audio_enc_to_dec_proj)\.(weight|bias)")

CONDITION, MELODY = "description", "self_wav"
"""audiocraft's names of the text and of the melody. transformers needs none."""
_CONDITIONERS = {"enc_to_dec_proj": CONDITION, "audio_enc_to_dec_proj": MELODY}


def audiocraft_name(name: str) -> tuple[str, int, int] | None:
    """audiocraft's name of a tensor, which part of it transformers' tensor is, and how many parts there are; None for a
    tensor that is not the language model's. Names may begin with `decoder.`, as those of the whole model do."""
    if match := _LAYER.fullmatch(name):
        prefix, rest = f"transformer.layers.{int(match[1])}.", match[2]
        if projection := _PROJECTION.fullmatch(rest):
            attention = _ATTENTION[projection[1]]
            return f"{prefix}{attention}.in_proj_weight", PROJECTIONS.index(projection[2]), len(PROJECTIONS)
        return f"{prefix}{_LAYER_NAMES.get(rest, rest)}", 0, 1
    if match := _CODEBOOK.fullmatch(name):
        return f"{_CODEBOOK_NAMES[match[1]]}.{int(match[2])}.weight", 0, 1
    if match := _OUT_NORM.fullmatch(name):
        return f"out_norm.{match[1]}", 0, 1
    if match := _PROJECTIONS.fullmatch(name):
        return f"condition_provider.conditioners.{_CONDITIONERS[match[1]]}.output_proj.{match[2]}", 0, 1
    return None
