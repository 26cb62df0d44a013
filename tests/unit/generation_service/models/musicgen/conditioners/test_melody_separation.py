"""demucs separates the melody as audiocraft has it separated; where demucs or its weights are missing, it is said."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

import torch
from safetensors.torch import save_file

from generation_service.models.musicgen.conditioners.melody_separation import (
    SEPARATOR,
    MelodySeparator,
    SeparationUnavailable,
)
from tests.support.checkpoints import T5_REVISION
from tests.support.golden_prefixes import melody_clip

SIGNATURE = "955717e8"
needs_demucs = pytest.mark.skipif(importlib.util.find_spec("demucs") is None, reason="demucs is optional")
SHAPE: dict[str, Any] = {
    "channels": 8,
    "dconv_comp": 2,
    "depth": 4,
    "t_layers": 1,
    "t_heads": 2,
    "t_dropout": 0.0,
    "nfft": 4096,
}
FRACTION = {"_type": "fraction", "numerator": 39, "denominator": 5}
SOURCES = ["drums", "bass", "other", "vocals"]


def write_weights(cache: Path, metadata: dict[str, str], state: dict[str, torch.Tensor]) -> None:
    """Writes htdemucs as demucs's `tools/export_hf.py` does, and as `hf download` stores it."""
    repository = cache / f"models--{SEPARATOR.replace('/', '--')}"
    snapshot = repository / "snapshots" / T5_REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(T5_REVISION)
    (snapshot / "htdemucs.yaml").write_text(f"models: ['{SIGNATURE}']\n")
    save_file(state, snapshot / f"{SIGNATURE}.safetensors", metadata)


def metadata(klass: str = "demucs.htdemucs.HTDemucs") -> dict[str, str]:
    keywords = {"sources": SOURCES, "segment": FRACTION, **SHAPE}
    return {"klass": klass, "args": "[]", "kwargs": json.dumps(keywords)}


@needs_demucs
def test_separated_melody_equals_that_of_audiocraft(tmp_path: Path) -> None:
    from fractions import Fraction

    from demucs.apply import apply_model
    from demucs.htdemucs import HTDemucs

    julius = pytest.importorskip("julius")
    torch.manual_seed(0)
    network = HTDemucs(SOURCES, segment=Fraction(39, 5), **SHAPE).eval()
    write_weights(tmp_path, metadata(), network.state_dict())
    mix = torch.from_numpy(melody_clip(1, 60)[:, 0].copy())
    resampled = julius.resample_frac(mix[None, None].expand(1, 2, -1), 32_000, 44_100)
    with torch.no_grad():
        stems = apply_model(network, resampled, shifts=0)[:, [3, 2]].sum(1)
    expected = julius.resample_frac(stems.mean(1), 44_100, 32_000)[0]
    found = MelodySeparator(cache=tmp_path).separate(mix, 32_000)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert len(found) == len(mix)


@needs_demucs
def test_weights_of_another_class_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path, metadata("os.system"), {"x": torch.zeros(1)})
    with pytest.raises(SeparationUnavailable, match=r"its class is 'os\.system'"):
        MelodySeparator(cache=tmp_path)


@needs_demucs
def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path, metadata(), {"x": torch.zeros(1)})
    with pytest.raises(SeparationUnavailable, match="not demucs's weights"):
        MelodySeparator(cache=tmp_path)


@needs_demucs
def test_missing_weights_are_named_with_the_command_that_gets_them(tmp_path: Path) -> None:
    with pytest.raises(SeparationUnavailable, match="hf download adefossez/HTDemucs"):
        MelodySeparator(cache=tmp_path)


def test_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "demucs.apply", None)
    with pytest.raises(SeparationUnavailable, match=r"demucs is not installed .*pip install .*dgx-music\[melody\]"):
        MelodySeparator()
