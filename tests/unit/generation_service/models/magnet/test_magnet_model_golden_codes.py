"""The golden codes of AudioGen and MAGNeT equal those that audiocraft generates. Needs audiocraft."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="MAGNeT needs torch")

import torch

from tests.support.golden_codes import golden
from tests.support.sound_codes import FILE, reference_codes

pytestmark = pytest.mark.filterwarnings("default")


def test_golden_codes_equal_audiocraft() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("audiocraft", reason="the reference is audiocraft; make setup-audiocraft")
    weights, reference = reference_codes(Path(os.environ["HF_HOME"]))
    for name, codes in reference.items():
        for expected, actual in zip(golden(name, weights, FILE), codes, strict=True):
            assert torch.equal(expected, actual), name
