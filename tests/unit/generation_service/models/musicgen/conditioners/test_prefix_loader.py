"""What a model needs before its codes is loaded with it, and what is missing is said."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="MERT's network is transformers' HuBERT")

from dgx_music.errors import FailedPrecondition
from generation_service.models.base import StyleExcerpt
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.conditioners import mert as mert_module
from generation_service.models.musicgen.conditioners.prefix_conditioner import PrefixConditioner
from generation_service.models.musicgen.conditioners.prefix_loader import load_prefix_conditioner
from tests.support.checkpoints import T5_REVISION
from tests.support.compression_checkpoints import TINY_CODEC, write_transformers_codec
from tests.support.golden_prefixes import style_clip
from tests.support.log_capture import captured_logs
from tests.support.prefix_checkpoints import write_style_checkpoint


def load(folder: Path) -> PrefixConditioner | None:
    checkpoint = read_checkpoint(folder)
    return load_prefix_conditioner(checkpoint, parse_lm_config(checkpoint), "cpu")


def test_model_with_cross_attention_has_none(mono: Path) -> None:
    assert load(mono) is None


def test_missing_mert_is_named(style: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mert_module, "NAME", "m-a-p/another")
    with pytest.raises(FailedPrecondition, match="hf download m-a-p/another") as error:
        load(style)
    assert error.value.reason == "STYLE_ENCODER_MISSING"


@pytest.fixture
def encodec() -> Iterator[None]:
    """The codec that MusicGen-Style names, in the cache for as long as a test."""
    repository = Path(os.environ["HF_HOME"]) / "hub/models--facebook--encodec_32khz"
    write_transformers_codec(repository / "snapshots" / T5_REVISION, TINY_CODEC)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(T5_REVISION)
    yield
    shutil.rmtree(repository)


def test_style_without_mert_reads_the_codec_that_it_names(tmp_path: Path, encodec: None) -> None:
    write_style_checkpoint(tmp_path, feature_model="encodec")
    conditioner = load(tmp_path)
    assert conditioner is not None
    assert conditioner._style is not None
    assert conditioner._style.encode(StyleExcerpt(style_clip(3.0))).shape == (10, 64)


def test_missing_codec_is_named(tmp_path: Path) -> None:
    write_style_checkpoint(tmp_path, feature_model="encodec")
    with pytest.raises(FailedPrecondition, match="hf download facebook/encodec_32khz"):
        load(tmp_path)


def test_melody_is_not_separated_without_demucs_and_that_is_logged(
    melody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "demucs.apply", None)
    with captured_logs("json") as log:
        conditioner = load(melody)
    assert conditioner is not None
    assert conditioner._melody is not None
    assert conditioner._melody.separator is None
    (event,) = (json.loads(line) for line in log.getvalue().splitlines())
    assert event["event"] == "melody_separation_unavailable"
    assert "dgx-music[melody]" in event["reason"]
