"""The configurations of melody and style: those of the published models, and unusable ones, which are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="checkpoints are torch's")

import torch
import yaml

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig, parse_lm_config
from generation_service.models.musicgen.checkpoints.prefixes.prefix_config import ChromaConfig, MelodyConfig
from tests.support.checkpoints import save_lm_package


def parse(folder: Path, changed: Path, change: Callable[[dict[str, Any]], object]) -> LmConfig:
    package = torch.load(folder / "state_dict.bin")
    config = yaml.safe_load(package["xp.cfg"])
    change(config)
    package["xp.cfg"] = yaml.safe_dump(config)
    return parse_lm_config(read_checkpoint(save_lm_package(changed, package)))


def test_melody_of_the_published_models(melody: Path, tmp_path: Path) -> None:
    config = parse(melody, tmp_path, lambda c: c["dataset"].update(segment_duration=30))
    chroma = ChromaConfig(32_000, n_chroma=12, window_length=16_384, fft_length=16_384, hop_frames=4096, argmax=True)
    assert config.melody == MelodyConfig("self_wav", chroma, length=235)
    assert not config.has_cross_attention
    assert config.condition == "description"
    assert config.max_prefix_positions == 235 + 512


def test_style_of_the_published_model(style: Path, tmp_path: Path) -> None:
    def publish(config: dict[str, Any]) -> None:
        own = config["conditioners"]["self_wav"]["style"]
        own.update(transformer_scale="default", n_q_out=6, eval_q=3, bins=1024, encodec_checkpoint="//sig/1234")

    config = parse(style, tmp_path, publish)
    assert config.style is not None
    assert (config.style.dim, config.style.num_heads, config.style.num_layers) == (512, 8, 8)
    assert (config.style.codebooks, config.style.default_codebooks, config.style.codebook_size) == (6, 3, 1024)
    assert config.style.encodec_name == "", "MERT needs none"
    assert config.style.max_length == 23


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.update(radix2_exp=40), r"radix2_exp is 40; expected at most 20"),
        (lambda c: c.update(n_chroma=0), "n_chroma is 0; expected an integer of at least 1"),
        (lambda c: c.update(sample_rate=16_000), "sample_rate is 16000; only 32000"),
        (lambda c: c.update(nfft=1024), r"nfft is 1024; expected at least the window's 16,?384"),
        (lambda c: c.update(norm=2), r"norm is 2; only inf"),
    ],
)
def test_unusable_melody_is_refused(
    melody: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    with pytest.raises(FailedPrecondition, match=problem):
        parse(melody, tmp_path, lambda config: change(config["conditioners"]["self_wav"]["chroma_stem"]))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.update(model_name="clap"), "model_name is 'clap'; expected mert or encodec"),
        (lambda c: c.update(transformer_scale="huge"), "transformer_scale is 'huge'"),
        (lambda c: c.update(eval_q=5), "eval_q is 5; expected at most 4"),
        (lambda c: c.update(bins=10**9), "bins is 1000000000; expected at most"),
        (lambda c: c.update(model_name="encodec", encodec_checkpoint="//sig/1234"), "only //pretrained/NAME"),
    ],
)
def test_unusable_style_is_refused(
    style: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    with pytest.raises(FailedPrecondition, match=problem):
        parse(style, tmp_path, lambda config: change(config["conditioners"]["self_wav"]["style"]))


def test_conditioner_of_another_kind_is_refused(melody: Path, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"self_wav\.model is 'clap'; expected one chroma_stem or one style"):
        parse(melody, tmp_path, lambda config: config["conditioners"]["self_wav"].update(model="clap"))
