"""Writes checkpoints of MusicGen-melody and MusicGen-Style in audiocraft's real format, and of MERT, with random
weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from tests.support.checkpoints import T5_REVISION, TINY, lm_config_dump, lm_weights, save_lm_package
from tests.support.compression_checkpoints import TINY_CODEC, write_compression_checkpoint
from tests.support.golden_codes import FRAME_RATE_HZ, WINDOW

SEGMENT_SECONDS = WINDOW / FRAME_RATE_HZ
"""Length of the clips that the models were trained on, and so of a window; 30 in the published ones."""
CHROMA_LENGTH = 10
"""Frames of chroma in a window."""
STYLE_DIM = 256
STYLE_LAYERS = 4
STYLE_CODEBOOKS, STYLE_DEFAULT_CODEBOOKS, STYLE_CODEBOOK_SIZE = 4, 2, 32
MERT_FEATURES = 768
ENCODEC_CODEBOOKS = 3


def write_melody_checkpoint(folder: Path, *, stereo: bool = False) -> None:
    """Like the repository `facebook/musicgen-melody` or `facebook/musicgen-stereo-melody`."""
    window = {"chroma.spec.window": torch.hann_window(1 << 14)}  # audiocraft saves it with the weights.
    _write(folder, {"model": "chroma_stem", "chroma_stem": _chroma_config()}, window, 12, stereo=stereo)


def write_style_checkpoint(folder: Path, *, feature_model: str = "mert") -> None:
    """Like the repository `facebook/musicgen-style`, with a smaller transformer."""
    config = {"model": "style", "style": _style_config(feature_model)}
    _write(folder, config, style_weights(feature_model), STYLE_DIM)


def _write(
    folder: Path, conditioner: dict[str, Any], weights: dict[str, Tensor], features: int, *, stereo: bool = False
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = lm_config_dump(TINY, stereo=stereo)
    config["dataset"]["segment_duration"] = SEGMENT_SECONDS
    config["fuser"] |= {"prepend": ["self_wav", "description"], "cross": []}
    config["conditioners"]["self_wav"] = conditioner
    state = lm_weights(TINY, 8 if stereo else 4, 0)
    # Without cross-attention, there are no weights for it.
    state = {name: tensor for name, tensor in state.items() if "cross" not in name}
    generator = torch.Generator().manual_seed(7)
    weights |= {
        "output_proj.weight": torch.randn(TINY.dim, features, generator=generator) * features**-0.5 * 2,
        "output_proj.bias": torch.randn(TINY.dim, generator=generator) * 0.1,
    }
    state |= {f"condition_provider.conditioners.self_wav.{name}": tensor for name, tensor in weights.items()}
    save_lm_package(
        folder, {"best_state": state, "xp.cfg": yaml.safe_dump(config), "version": "1.3.0", "exported": True}
    )
    write_compression_checkpoint(folder, TINY_CODEC)


def _chroma_config() -> dict[str, Any]:
    """`conditioners.self_wav.chroma_stem` of the published models."""
    return {
        "sample_rate": "${sample_rate}",
        "n_chroma": 12,
        "radix2_exp": 14,
        "argmax": True,
        "match_len_on_eval": False,
        "eval_wavs": None,
        "n_eval_wavs": 100,
        "cache_path": None,
    }


def _style_config(feature_model: str) -> dict[str, Any]:
    """`conditioners.self_wav.style` of the published model, but for the sizes."""
    return {
        "model_name": feature_model,
        "transformer_scale": "xsmall",
        "sample_rate": "${sample_rate}",
        "encodec_checkpoint": "//pretrained/facebook/encodec_32khz",
        "encodec_n_q": ENCODEC_CODEBOOKS,
        "length": 3.0,
        "ds_factor": 15,
        "n_q_out": STYLE_CODEBOOKS,
        "eval_q": STYLE_DEFAULT_CODEBOOKS,
        "q_dropout": True,
        "bins": STYLE_CODEBOOK_SIZE,
        "varying_lengths": [1.5, 4.5],
        "batch_norm": True,
        "compute_mask": True,
        "num_codebooks_lm": "${transformer_lm.n_q}",
        "ds_rate_compression": 640,
        "use_middle_of_segment": False,
        "rvq_threshold_ema_dead_code": 0.1,
    }


def style_weights(feature_model: str) -> dict[str, Tensor]:
    """The tensors of the style conditioner, but for its `output_proj`."""
    generator = torch.Generator().manual_seed(5)

    def random(*size: int, scale: float | None = None) -> Tensor:
        return torch.randn(*size, generator=generator) * (size[-1] ** -0.5 if scale is None else scale)

    dim = STYLE_DIM
    weights: dict[str, Tensor] = {}
    if feature_model == "mert":
        weights |= {"embed.weight": random(dim, MERT_FEATURES), "embed.bias": random(dim, scale=0.1)}
    else:
        for k in range(ENCODEC_CODEBOOKS):
            weights[f"embed.{k}.weight"] = random(TINY_CODEC.codebook_size, dim, scale=1.0)
    for i in range(STYLE_LAYERS):
        prefix = f"transformer.layers.{i}."
        weights |= {
            f"{prefix}self_attn.in_proj_weight": random(3 * dim, dim),
            f"{prefix}self_attn.out_proj.weight": random(dim, dim),
            f"{prefix}linear1.weight": random(4 * dim, dim),
            f"{prefix}linear2.weight": random(dim, 4 * dim),
        }
        for norm in ("norm1", "norm2"):
            weights |= {
                f"{prefix}{norm}.weight": 1 + random(dim, scale=0.1),
                f"{prefix}{norm}.bias": random(dim, scale=0.1),
            }
    weights |= {
        "batch_norm.running_mean": random(dim, scale=0.1),
        "batch_norm.running_var": 1 + random(dim, scale=0.1).abs(),
        "batch_norm.num_batches_tracked": torch.tensor(1000),
    }
    for k in range(STYLE_CODEBOOKS):
        embed = random(STYLE_CODEBOOK_SIZE, dim, scale=0.5**k)
        weights |= {
            f"rvq.vq.layers.{k}._codebook.inited": torch.ones(1),
            f"rvq.vq.layers.{k}._codebook.cluster_size": torch.ones(STYLE_CODEBOOK_SIZE),
            f"rvq.vq.layers.{k}._codebook.embed": embed,
            f"rvq.vq.layers.{k}._codebook.embed_avg": embed.clone(),
        }
    return weights


def write_mert(hf_home: Path) -> Path:
    """Writes `m-a-p/MERT-v1-95M` as `hf download` stores it: HuBERT's weights, under the names that torch gave them
    when it was published, and a configuration that names code of its own. Returns the folder of the files."""
    from transformers import HubertConfig, HubertModel

    repository = hf_home / "hub" / "models--m-a-p--MERT-v1-95M"
    snapshot = repository / "snapshots" / T5_REVISION
    for folder in (repository / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(T5_REVISION)
    config = HubertConfig(
        hidden_size=MERT_FEATURES,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = HubertModel(config)
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save(state, snapshot / "pytorch_model.bin")
    fields = config.to_dict() | {
        "architectures": ["MERTModel"],
        "auto_map": {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"},
        "model_type": "mert_model",
        "attention_relax": -1.0,
        "deepnorm": False,
        "feature_extractor_cqt": False,
        "feat_proj_layer_norm": True,
        "sample_rate": 24000,
    }
    (snapshot / "config.json").write_text(json.dumps(fields))
    (snapshot / "modeling_MERT.py").write_text("raise RuntimeError('code of the repository was run')\n")
    return snapshot
