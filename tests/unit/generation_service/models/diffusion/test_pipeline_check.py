"""Weights that do not fit the configuration."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dgx_music.errors import FailedPrecondition
from generation_service.models.diffusion.pipeline_check import check_shapes
from generation_service.models.diffusion.pipeline_folder import read_pipeline_folder

FILE = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("family", ["stable-audio", "stable-audio-3", "ace-step"])
def test_what_the_library_saves_fits(pipelines: Callable[[str], Path], family: str) -> None:
    check_shapes(read_pipeline_folder(pipelines(family)))


def test_a_missing_tensor_is_named(broken: Path) -> None:
    path = broken / "transformer" / FILE
    tensors = load_file(path)
    del tensors["proj_in.weight"]
    save_file(tensors, path)
    with pytest.raises(FailedPrecondition, match=r"the weights lack tensor 'proj_in\.weight' of \[16, 4\]"):
        check_shapes(read_pipeline_folder(broken))


def test_swapped_weights_are_refused(broken: Path) -> None:
    (broken / "vae" / FILE).write_bytes((broken / "transformer" / FILE).read_bytes())
    with pytest.raises(FailedPrecondition, match="vae: the weights lack tensor 'encoder"):
        check_shapes(read_pipeline_folder(broken))


def test_a_configuration_that_asks_for_100_gb_is_refused_without_memory(broken: Path) -> None:
    path = broken / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 10**9, "d_ff": 10**8}))
    check_shapes_once = read_pipeline_folder(broken)
    started_at = time.process_time()
    with pytest.raises(
        FailedPrecondition, match=r"tensor 'shared\.weight' has the shape \[128, 16\], but config.json asks for \[10"
    ):
        check_shapes(check_shapes_once)
    assert time.process_time() - started_at < 1.0


@pytest.mark.parametrize("value", ["wide", -1, None, 1.5])
def test_a_configuration_that_the_class_rejects_is_refused(broken: Path, value: object) -> None:
    path = broken / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_head_dim": value}))
    with pytest.raises(FailedPrecondition, match=r"transformer") as caught:
        check_shapes(read_pipeline_folder(broken))
    assert caught.value.reason == "CHECKPOINT_INVALID"
