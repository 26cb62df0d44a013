"""Writes MusicGen checkpoints in audiocraft's real format, with random weights, for tests and benchmarks.

    python -m tests.support.checkpoints FOLDER [--shape tiny|small] [--stereo]

writes `state_dict.bin`, `compression_state_dict.bin`, and under `FOLDER/hf` a Hugging Face cache with `t5-base`. Set
HF_HOME to that cache, and HF_HUB_OFFLINE=1.
"""

from __future__ import annotations

import argparse
import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from tests.support.compression_checkpoints import FULL_CODEC, TINY_CODEC, write_compression_checkpoint

T5_DIM = 768
"""The width of t5-base, by which audiocraft identifies it. Its other dimensions may be smaller."""
T5_REVISION = "0" * 40


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of the language model and of T5."""

    dim: int
    num_heads: int
    num_layers: int
    card: int
    t5_layers: int


TINY = Shape(dim=64, num_heads=4, num_layers=3, card=64, t5_layers=1)
SMALL = Shape(dim=1024, num_heads=16, num_layers=24, card=2048, t5_layers=12)
"""The shape of musicgen-small."""
WIDE = replace(SMALL, num_layers=4)
"""Every matrix has the size that it has in musicgen-small, at a sixth of the price."""
SHAPES = {"tiny": TINY, "small": SMALL}


def write_checkpoint(folder: Path, shape: str = "tiny", *, stereo: bool = False, seed: int = 0) -> None:
    """Writes everything but T5, like the repository `facebook/musicgen-small`."""
    write_lm(folder, SHAPES[shape], stereo=stereo, seed=seed)
    write_compression_checkpoint(folder, FULL_CODEC if shape == "small" else TINY_CODEC, seed=seed)


def write_lm(
    folder: Path, shape: Shape, *, stereo: bool = False, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Writes `state_dict.bin`. Meta's files are float16; in float32 the reference does not round in other places."""
    folder.mkdir(parents=True, exist_ok=True)
    n_q = 8 if stereo else 4
    weights = {name: tensor.to(dtype) for name, tensor in lm_weights(shape, n_q, seed).items()}
    package = {
        "best_state": weights,
        "xp.cfg": yaml.safe_dump(lm_config_dump(shape, stereo=stereo)),
        "version": "1.3.0",
        "exported": True,
    }
    path = folder / "state_dict.bin"
    torch.save(package, path)
    return path


def save_lm_package(folder: Path, package: Any) -> Path:
    """Saves anything as a folder's `state_dict.bin`."""
    torch.save(package, folder / "state_dict.bin")
    return folder / "state_dict.bin"


def write_lm_with_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A tiny mono `state_dict.bin` whose configuration `change` has modified in place."""
    config = lm_config_dump(TINY, stereo=False)
    change(config)
    return save_lm_package(folder, {"best_state": lm_weights(TINY, 4, 0), "xp.cfg": yaml.safe_dump(config)})


def lm_weights(shape: Shape, n_q: int, seed: int, t5_dim: int = T5_DIM) -> dict[str, Tensor]:
    """Random weights, scaled so that the logits are of order 1 and depend on the prompt."""
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int, scale: float | None = None) -> Tensor:
        return torch.randn(*size, generator=generator) * (size[-1] ** -0.5 if scale is None else scale)

    dim = shape.dim
    weights = {
        "condition_provider.conditioners.description.output_proj.weight": random(dim, t5_dim),
        "condition_provider.conditioners.description.output_proj.bias": random(dim, scale=0.1),
    }
    for k in range(n_q):
        weights[f"emb.{k}.weight"] = random(shape.card + 1, dim, scale=1.0)
        weights[f"linears.{k}.weight"] = random(shape.card, dim)
    for i in range(shape.num_layers):
        prefix = f"transformer.layers.{i}."
        for attention in ("self_attn", "cross_attention"):
            weights[f"{prefix}{attention}.in_proj_weight"] = random(3 * dim, dim)
            weights[f"{prefix}{attention}.out_proj.weight"] = random(dim, dim)
        weights[f"{prefix}linear1.weight"] = random(4 * dim, dim)
        weights[f"{prefix}linear2.weight"] = random(dim, 4 * dim)
        for norm in ("norm1", "norm2", "norm_cross"):
            weights[f"{prefix}{norm}.weight"] = 1 + random(dim, scale=0.1)
            weights[f"{prefix}{norm}.bias"] = random(dim, scale=0.1)
    weights["out_norm.weight"] = 1 + random(dim, scale=0.1)
    weights["out_norm.bias"] = random(dim, scale=0.1)
    return weights


def lm_config_dump(shape: Shape, *, stereo: bool) -> dict[str, Any]:
    """The fields of a published model's `xp.cfg` that any loader reads."""
    n_q = 8 if stereo else 4
    return {
        "device": "cuda",
        "dtype": "float32",
        "sample_rate": 32000,
        "channels": 2 if stereo else 1,
        "lm_model": "transformer_lm",
        "compression_model_n_q": None,
        "interleave_stereo_codebooks": {"use": stereo, "per_timestep": False},
        "dataset": {"segment_duration": 30, "sample_rate": "${sample_rate}"},
        "transformer_lm": {
            "n_q": n_q,
            "card": shape.card,
            "dim": shape.dim,
            "num_heads": shape.num_heads,
            "num_layers": shape.num_layers,
            "hidden_scale": 4,
            "dropout": 0.1,
            "emb_lr": None,
            "activation": "gelu",
            "norm_first": True,
            "bias_ff": False,
            "bias_attn": False,
            "bias_proj": False,
            "past_context": None,
            "causal": True,
            "custom": False,
            "memory_efficient": True,
            "attention_as_float32": False,
            "layer_scale": None,
            "positional_embedding": "sin",
            "xpos": False,
            "checkpointing": "none",
            "weight_init": "gaussian",
            "depthwise_init": "current",
            "zero_bias_init": True,
            "norm": "layer_norm",
            "cross_attention": False,
            "qk_layer_norm": False,
            "qk_layer_norm_cross": False,
            "attention_dropout": None,
            "kv_repeat": 1,
            "two_step_cfg": False,
        },
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {
                "delays": [k // 2 for k in range(8)] if stereo else list(range(4)),
                "flatten_first": 0,
                "empty_initial": 0,
            },
        },
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": 3.0},
        "attribute_dropout": {"args": {"active_on_eval": False}, "text": {}, "wav": {}},
        "fuser": {
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
            "sum": [],
            "prepend": [],
            "cross": ["description"],
            "input_interpolate": [],
        },
        "conditioners": {
            "args": {"merge_text_conditions_p": 0.25, "drop_desc_p": 0.5},
            "description": {
                "model": "t5",
                "t5": {"name": "t5-base", "finetune": False, "word_dropout": 0.3, "normalize_text": False},
            },
        },
    }


def write_t5(
    hf_home: Path, layers: int = TINY.t5_layers, *, seed: int = 0, name: str = "t5-base", dim: int = T5_DIM
) -> None:
    """Writes a T5 as `hf download` stores it in a cache, with a vocabulary of single characters."""
    from transformers import T5Config, T5EncoderModel

    repository = hf_home / "hub" / f"models--{name}"
    snapshot = repository / "snapshots" / T5_REVISION
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(T5_REVISION)
    write_tokenizer(snapshot)
    heads = 12 if layers == SMALL.t5_layers else 2
    config = T5Config(
        vocab_size=128, d_model=dim, d_kv=64, d_ff=256 * heads, num_layers=layers, num_heads=heads, pad_token_id=0
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = T5EncoderModel(config)
        # With T5's own initialization, all prompts would have almost the same encoding.
        torch.nn.init.normal_(model.shared.weight)
    model.save_pretrained(snapshot)


def write_tokenizer(folder: Path) -> None:
    """Writes T5's tokenizer with a vocabulary of single characters."""
    from transformers import T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    characters = [(character, -3.0) for character in string.ascii_letters + string.digits + string.punctuation]
    T5Tokenizer(vocab=special + characters, extra_ids=0).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--stereo", action="store_true")
    arguments = parser.parse_args()
    write_checkpoint(arguments.folder, arguments.shape, stereo=arguments.stereo)
    write_t5(arguments.folder / "hf", SHAPES[arguments.shape].t5_layers)


if __name__ == "__main__":
    main()
