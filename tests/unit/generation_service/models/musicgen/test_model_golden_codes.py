"""The golden codes equal those that audiocraft generates. Needs audiocraft."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

import torch

from tests.support.golden_codes import PROMPTS, Audiocraft, checksums_of, golden

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module", params=["mono", "stereo"])
def folder(request: pytest.FixtureRequest, t5: None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("audiocraft", reason="the reference is audiocraft; make setup-audiocraft")
    path: Path = request.getfixturevalue(request.param)
    return path


def test_golden_codes_equal_audiocraft(folder: Path) -> None:
    reference, weights = Audiocraft(folder), checksums_of(folder)
    for kind, actual in (
        ("prompts", reference.prompts(PROMPTS)),
        ("negatives", reference.negatives()),
        ("windows", reference.windows()),
        ("continuations", reference.continuations()),
    ):
        for expected, codes in zip(golden(f"{folder.name}/{kind}", weights), actual, strict=True):
            assert torch.equal(expected, codes), kind


def test_golden_codes_of_other_weights_are_rejected(folder: Path) -> None:
    weights = checksums_of(folder)
    lm = f"{folder.name}/lm"
    with pytest.raises(AssertionError, match=r"random weights .*/lm .* python -m tests\.support\.golden_codes"):
        golden(f"{folder.name}/prompts", {**weights, lm: weights[lm] * 1.00001})
