# ruff: noqa: E402
"""Reading checkpoints of audiocraft's training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.checkpoints.weight_check import check_lm_weights
from tests.support.checkpoints import TINY, lm_config_dump, lm_weights
from tests.support.compression_checkpoints import write_compression_checkpoint
from tests.support.training_checkpoints import CODEC, EXPORTED, TRAINING


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(TRAINING, tmp_path)
    return tmp_path


def test_it_holds_what_audiocraft_exports_of_it(folder: Path) -> None:
    training, exported = read_checkpoint(folder), read_checkpoint(EXPORTED)
    assert training.layout == "training"
    assert training.config == exported.config
    weights, expected = training.map_tensors(), exported.map_tensors()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    check_lm_weights(training, parse_lm_config(training))


def test_its_codec_is_the_one_in_the_folder_or_the_one_it_was_trained_with(folder: Path) -> None:
    training = read_checkpoint(folder)
    with pytest.raises(FailedPrecondition, match=f"download it with: hf download {CODEC}"):
        training.open_codec()
    write_compression_checkpoint(folder)
    assert read_checkpoint(folder).digest.startswith(training.digest)
    assert training.open_codec().config["compression_model"] == "encodec"


def _save(folder: Path, **changes: Any) -> Path:
    package = {"best_state": {"model": lm_weights(TINY, 4, 0)}, "xp.cfg": lm_config_dump(TINY, stereo=False)}
    torch.save({key: value for key, value in (package | changes).items() if value is not None}, folder / TRAINING.name)
    return folder


def test_fully_sharded_training_keeps_the_best_weights_elsewhere(tmp_path: Path) -> None:
    best = lm_weights(TINY, 4, seed=1)
    checkpoint = read_checkpoint(_save(tmp_path, fsdp_best_state={"model": best}))
    assert torch.equal(checkpoint.map_tensors()["emb.0.weight"], best["emb.0.weight"])


class Unknown:
    pass


@pytest.mark.parametrize(
    ("changes", "reason", "problem"),
    [
        ({"best_state": None}, "CHECKPOINT_INVALID", r"as audiocraft's training saves them; found \['xp\.cfg'\]"),
        ({"best_state": {"codec": {}}}, "CHECKPOINT_INVALID", "has no model with a mapping of tensors"),
        ({"xp.cfg": 7}, "CHECKPOINT_INVALID", r"xp\.cfg is not a mapping"),
        ({"history": [Unknown()]}, "CHECKPOINT_UNSAFE", r"reading it would run .*Unknown"),
    ],
)
def test_invalid_checkpoint_is_rejected(tmp_path: Path, changes: dict[str, Any], reason: str, problem: str) -> None:
    with pytest.raises(FailedPrecondition, match=problem) as caught:
        read_checkpoint(_save(tmp_path, **changes))
    assert caught.value.reason == reason


def test_codec_of_the_cluster_has_to_be_exported(tmp_path: Path) -> None:
    config = lm_config_dump(TINY, stereo=False) | {"compression_model_checkpoint": "//sig/1234abcd"}
    with pytest.raises(FailedPrecondition, match=r"'//sig/1234abcd': export it to this file by .*export_encodec"):
        read_checkpoint(_save(tmp_path, **{"xp.cfg": config})).open_codec()
