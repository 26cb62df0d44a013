"""The codes that are kept as audiocraft's are what audiocraft makes."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

import torch

from tests.support.golden_codes import PROMPTS, Audiocraft, golden, weights_in

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module", params=["mono", "stereo"])
def folder(request: pytest.FixtureRequest, t5: None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("audiocraft", reason="the reference is audiocraft; make setup-audiocraft")
    path: Path = request.getfixturevalue(request.param)
    return path


def test_they_are_what_audiocraft_makes(folder: Path) -> None:
    reference, weights = Audiocraft(folder), weights_in(folder)
    for kind, made in (
        ("prompts", reference.prompts(PROMPTS)),
        ("windows", reference.windows()),
        ("continuations", reference.continuations()),
    ):
        for kept, codes in zip(golden(f"{folder.name}/{kind}", weights), made, strict=True):
            assert torch.equal(kept, codes), kind


def test_codes_of_other_weights_are_told_apart(folder: Path) -> None:
    weights = weights_in(folder)
    lm = f"{folder.name}/lm"
    with pytest.raises(AssertionError, match=r"random weights .*/lm come to .* python -m tests\.golden_codes"):
        golden(f"{folder.name}/prompts", {**weights, lm: weights[lm] * 1.00001})
