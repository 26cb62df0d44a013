"""MERT is read from its files as HuBERT: its own code is never run, and what does not fit is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="MERT's network is transformers' HuBERT")

import torch

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.conditioners.mert import Mert
from tests.support.golden_prefixes import style_clip


@pytest.fixture
def snapshot(mert: None, tmp_path: Path) -> Path:
    """A copy of the cached files, in a cache of its own."""
    name = "models--m-a-p--MERT-v1-95M"
    shutil.copytree(Path(os.environ["HF_HOME"]) / "hub" / name, tmp_path / name)
    return next((tmp_path / name / "snapshots").iterdir())


def test_features_equal_huberts(snapshot: Path, tmp_path: Path) -> None:
    from transformers import HubertConfig, HubertModel

    network = HubertModel(HubertConfig.from_dict(json.loads((snapshot / "config.json").read_text()))).eval()
    state = torch.load(snapshot / "pytorch_model.bin")
    for part, number in (("g", 0), ("v", 1)):
        name = "encoder.pos_conv_embed.conv."
        state[f"{name}parametrizations.weight.original{number}"] = state.pop(f"{name}weight_{part}")
    network.load_state_dict(state)
    samples = torch.from_numpy(style_clip(1.0)[:24_000, 0])
    with torch.inference_mode():
        expected = network(samples[None]).last_hidden_state[0]
    found = Mert(cache=tmp_path).extract(samples, 24_000)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert found.shape == (74, 768)


def test_missing_model_is_named_with_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="hf download m-a-p/MERT-v1-95M") as error:
        Mert(cache=tmp_path)
    assert error.value.reason == "STYLE_ENCODER_MISSING"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda fields: fields.update(feature_extractor_cqt=True), "feature_extractor_cqt is True"),
        (lambda fields: fields.update(num_hidden_layers=2), r"encoder\.layers\.1\.\S+ is missing"),
        (lambda fields: fields.update(intermediate_size=32), r"has the shape \[64, 768\].*expects \[32, 768\]"),
    ],
)
def test_other_network_is_refused(
    snapshot: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    fields = json.loads((snapshot / "config.json").read_text())
    change(fields)
    (snapshot / "config.json").write_text(json.dumps(fields))
    with pytest.raises(FailedPrecondition, match=problem):
        Mert(cache=tmp_path)


def test_pickle_with_code_is_refused_by_its_name(snapshot: Path, tmp_path: Path) -> None:
    torch.save({"weights": os.system}, snapshot / "pytorch_model.bin")
    with pytest.raises(FailedPrecondition, match=r"would run \S*system") as error:
        Mert(cache=tmp_path)
    assert error.value.reason == "CHECKPOINT_UNSAFE"
