# ruff: noqa: E402
"""Where the modules of transformers and of audiocraft are among the weights of the language model."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.adapters.adapter_targets import (
    EMBEDDING,
    HEADS,
    MELODY_PROJECTION,
    TEXT_PROJECTION,
    Target,
    find_target,
)
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config

LAYER, TEXT = "transformer.layers.1.", "condition_provider.conditioners.description.output_proj"
DIM, HIDDEN, CARD, TEXT_DIM = 64, 256, 64, 768


@pytest.fixture(scope="module")
def checkpoint(mono: Path) -> Checkpoint:
    return read_checkpoint(mono)


def find(module: str, checkpoint: Checkpoint) -> Target | None:
    return find_target(module, parse_lm_config(checkpoint), checkpoint.headers)


@pytest.mark.parametrize("prefix", ["", "decoder."])
@pytest.mark.parametrize(
    ("module", "target"),
    [
        (
            "self_attn.k_proj",
            Target(f"{LAYER}self_attn.in_proj_weight", DIM, DIM, DIM, "1.qkv", 3 * DIM, DIM, output=DIM),
        ),
        ("self_attn.out_proj", Target(f"{LAYER}self_attn.out_proj.weight", 0, DIM, DIM, "1.out", DIM, DIM)),
        (
            "encoder_attn.q_proj",
            Target(f"{LAYER}cross_attention.in_proj_weight", 0, DIM, DIM, "1.cross_q", DIM, DIM),
        ),
        (
            "encoder_attn.v_proj",
            Target(f"{LAYER}cross_attention.in_proj_weight", 2 * DIM, DIM, DIM, "1.cross_kv", 2 * DIM, DIM, output=DIM),
        ),
        ("fc1", Target(f"{LAYER}linear1.weight", 0, HIDDEN, DIM, "1.up", HIDDEN, DIM)),
        ("fc2", Target(f"{LAYER}linear2.weight", 0, DIM, HIDDEN, "1.down", DIM, HIDDEN)),
    ],
)
def test_modules_of_transformers(prefix: str, module: str, target: Target, checkpoint: Checkpoint) -> None:
    assert find(f"{prefix}model.decoder.layers.1.{module}", checkpoint) == target


@pytest.mark.parametrize(
    ("module", "same"),
    [
        ("transformer.layers.2.linear1", "model.decoder.layers.2.fc1"),
        ("transformer.layers.2.linear2", "model.decoder.layers.2.fc2"),
        ("transformer.layers.0.self_attn.out_proj", "model.decoder.layers.0.self_attn.out_proj"),
        ("transformer.layers.0.cross_attention.out_proj", "model.decoder.layers.0.encoder_attn.out_proj"),
        ("linears.3", "lm_heads.3"),
        ("emb.3", "model.decoder.embed_tokens.3"),
        (TEXT, "enc_to_dec_proj"),
    ],
)
def test_modules_of_audiocraft_are_those_of_transformers(module: str, same: str, checkpoint: Checkpoint) -> None:
    assert find(module, checkpoint) == find(same, checkpoint) is not None


def test_heads_embeddings_and_the_projection_of_texts(checkpoint: Checkpoint) -> None:
    assert find("decoder.lm_heads.2", checkpoint) == Target(
        "linears.2.weight", 0, CARD, DIM, HEADS, 4 * CARD, DIM, output=2 * CARD
    )
    codes = CARD + 1
    assert find("decoder.model.decoder.embed_tokens.1", checkpoint) == Target(
        "emb.1.weight", 0, DIM, codes, EMBEDDING, DIM, 4 * codes, input=codes
    )
    assert find("enc_to_dec_proj", checkpoint) == Target(
        f"{TEXT}.weight", 0, DIM, TEXT_DIM, TEXT_PROJECTION, DIM, TEXT_DIM
    )


@pytest.mark.parametrize(
    "module",
    [
        "model.decoder.layers.3.fc1",
        "model.decoder.layers.1.self_attn.qkv_proj",
        "lm_heads.4",
        "model.decoder.embed_tokens.4",
        "transformer.layers.1.self_attn.q_proj",
        "text_encoder.encoder.block.0.layer.0.SelfAttention.q",
        "audio_enc_to_dec_proj",
        "condition_provider.conditioners.self_wav.output_proj",
        "",
    ],
)
def test_modules_that_the_model_does_not_have(module: str, checkpoint: Checkpoint) -> None:
    assert find(module, checkpoint) is None


def test_melody_models_have_a_projection_of_melodies_and_no_cross_attention(melody: Path) -> None:
    checkpoint = read_checkpoint(melody)
    target = find("audio_enc_to_dec_proj", checkpoint)
    assert target == find("condition_provider.conditioners.self_wav.output_proj", checkpoint)
    assert target is not None
    assert (target.layer, target.outputs) == (MELODY_PROJECTION, DIM)
    assert find("model.decoder.layers.1.encoder_attn.q_proj", checkpoint) is None
    assert find("model.decoder.layers.1.self_attn.q_proj", checkpoint) is not None
