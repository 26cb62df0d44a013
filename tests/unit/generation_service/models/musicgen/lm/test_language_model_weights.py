# ruff: noqa: E402
"""Loading the language model's weights from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint import LM_FILE
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.lm.linear import Precision
from tests.support.checkpoints import TINY, write_lm, write_lm_with_config

MAPS = Path("/proc/self/maps")


def test_float16_weights_are_converted_to_float32(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_lm(tmp_path, TINY, dtype=torch.float16))
    assert checkpoint.map_tensors()["emb.0.weight"].dtype == torch.float16
    assert LanguageModel(checkpoint, parse_lm_config(checkpoint), "fp32")._embedding.dtype == torch.float32


def test_weights_that_do_not_fit_the_configuration_are_rejected(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_lm_with_config(tmp_path, lambda c: c["transformer_lm"].update(card=63)))
    with pytest.raises(FailedPrecondition, match=r"emb\.0\.weight has the shape \[65, 64\]; xp.cfg expects \[64, 64\]"):
        LanguageModel(checkpoint, parse_lm_config(checkpoint), "fp32")
    checkpoint = read_checkpoint(write_lm_with_config(tmp_path, lambda c: c["transformer_lm"].update(num_layers=4)))
    with pytest.raises(FailedPrecondition, match=r"has no transformer\.layers\.3\."):
        LanguageModel(checkpoint, parse_lm_config(checkpoint), "fp32")


def test_file_replaced_during_loading_is_rejected(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_lm(tmp_path, TINY))
    other = write_lm(tmp_path / "other", TINY, seed=1)
    other.replace(checkpoint.path)
    with pytest.raises(FailedPrecondition, match="the file was replaced during loading; load the model again"):
        LanguageModel(checkpoint, parse_lm_config(checkpoint), "fp32")


@pytest.mark.skipif(not MAPS.exists(), reason="needs /proc/self/maps")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_at_most_one_layer_of_the_file_is_mapped_at_a_time(precision: Precision, mono: Path, t5: None) -> None:
    """Mapped pages that were read count as the process's memory, so a layer is unmapped before the next is read."""
    checkpoint = read_checkpoint(mono / LM_FILE)
    was_mapped = []

    def is_mapped() -> bool:
        return str(checkpoint.path) in MAPS.read_text()

    def map_tensors() -> Mapping[str, Tensor]:
        was_mapped.append(is_mapped())
        tensors = checkpoint.map_tensors()
        assert is_mapped()
        return tensors

    watched, config = replace(checkpoint, map_tensors=map_tensors), parse_lm_config(checkpoint)
    model = LanguageModel(watched, config, precision), TextConditioner(watched, config)
    assert was_mapped == [False] * (config.num_layers + 2)
    assert not is_mapped(), model
