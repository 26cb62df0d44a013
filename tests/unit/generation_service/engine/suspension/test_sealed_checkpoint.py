"""A checkpoint is opened by the request that it belongs to, and by no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from generation_service.engine.suspension.sealed_checkpoint import open_checkpoint, seal_checkpoint
from generation_service.models.base import GenerationParameters, StyleExcerpt, WeightedPrompt
from generation_service.models.execution import ModelExecution
from tests.support.tone_model import ToneModel

INFO = ToneModel().info
EXECUTION = ModelExecution("cuda:0", "bf16", "bf16", 8, load_seconds=1.0)
AUDIO = np.arange(8, dtype=np.float32).reshape(-1, 2)
PARAMETERS = GenerationParameters(
    "a",
    800,
    1,
    prompt_audio=AUDIO,
    style=StyleExcerpt(AUDIO),
    further_prompts=(WeightedPrompt("b", 1.0),),
    checkpoint=b"that of the attempt before",
)
SEALED = seal_checkpoint(b"codes", INFO, EXECUTION, PARAMETERS)


def test_own_checkpoint_is_opened_on_another_device_of_the_kind() -> None:
    elsewhere = replace(EXECUTION, device="cuda:3", load_seconds=9.0)
    assert open_checkpoint(SEALED, INFO, elsewhere, replace(PARAMETERS, checkpoint=SEALED)) == b"codes"


def test_no_payload_needs_no_seal() -> None:
    assert seal_checkpoint(b"", INFO, EXECUTION, PARAMETERS) == b""
    assert open_checkpoint(b"", INFO, EXECUTION, PARAMETERS) == b""


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "b"},
        {"frames": 801},
        {"seed": 2},
        {"temperature": 0.5},
        {"prompt_audio": AUDIO + 1},
        {"prompt_audio": AUDIO.astype(np.float64)},
        {"style": StyleExcerpt(AUDIO * 2)},
        {"further_prompts": (WeightedPrompt("b", 2.0),)},
    ],
    ids=str,
)
def test_other_request_starts_at_the_beginning(change: dict[str, object]) -> None:
    assert open_checkpoint(SEALED, INFO, EXECUTION, replace(PARAMETERS, **change)) == b""


def test_other_model_version_precision_or_kind_of_device_starts_at_the_beginning() -> None:
    assert open_checkpoint(SEALED, replace(INFO, version="8"), EXECUTION, PARAMETERS) == b""
    for changed in (
        replace(EXECUTION, precision="int8"),
        replace(EXECUTION, kv_precision="fp8"),
        replace(EXECUTION, device="cpu"),
        None,
    ):
        assert open_checkpoint(SEALED, INFO, changed, PARAMETERS) == b""


@pytest.mark.parametrize("position", [0, 10, -1])
def test_damaged_checkpoint_starts_at_the_beginning(position: int) -> None:
    damaged = bytearray(SEALED)
    damaged[position] ^= 1
    for data in (bytes(damaged), SEALED[:-1], SEALED[:20], SEALED + b"more", b"garbage"):
        assert open_checkpoint(data, INFO, EXECUTION, PARAMETERS) == b""
