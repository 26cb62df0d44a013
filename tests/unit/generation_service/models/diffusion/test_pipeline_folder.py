"""Folders that are not what they should be, each with its own error, from their headers alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dgx_music.errors import FailedPrecondition
from generation_service.models.diffusion.pipeline_folder import read_pipeline_folder


def edit_json(path: Path, **changes: Any) -> None:
    """Replaces values in a JSON object."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder: Path) -> FailedPrecondition:
    started_at = time.process_time()
    with pytest.raises(FailedPrecondition) as caught:
        read_pipeline_folder(folder)
    assert time.process_time() - started_at < 1.0
    return caught.value


def test_a_valid_folder_is_described(pipelines: Callable[[str], Path]) -> None:
    found = read_pipeline_folder(pipelines("ace-step"))
    assert found.class_name == "AceStepPipeline"
    assert found.facts.sample_rate_hz == 8000
    assert len(found.digest) == 16


def test_the_digest_changes_with_the_weights_and_with_the_configurations(broken: Path) -> None:
    digests = {read_pipeline_folder(broken).digest}
    weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    digests.add(read_pipeline_folder(broken).digest)
    edit_json(broken / "scheduler" / "scheduler_config.json", sigma_max=400)
    digests.add(read_pipeline_folder(broken).digest)
    assert len(digests) == 3


@pytest.mark.parametrize("name", ["UNet2DPipeline", ["my_module", "MyPipeline"], None])
def test_another_pipeline_is_refused(broken: Path, name: object) -> None:
    edit_json(broken / "model_index.json", _class_name=name)
    error = refusal(broken)
    assert error.reason == "CHECKPOINT_UNSUPPORTED"
    assert "supported are StableAudioPipeline, StableAudio3Pipeline, AceStepPipeline" in error.message


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("transformer", ["my_transformer", "MyTransformer"]),
        ("transformer", ["diffusers", "UNet2DModel"]),
        ("text_encoder", ["os", "system"]),
        ("tokenizer", ["my_tokenizer", "T5Tokenizer"]),
        ("tokenizer", ["transformers", "T5EncoderModel"]),
        ("vae", "AutoencoderOobleck"),
        ("vae", [["diffusers"], "AutoencoderOobleck"]),
    ],
)
def test_code_of_the_folder_or_another_class_is_refused_and_not_imported(
    broken: Path, part: str, value: object
) -> None:
    (broken / part / "my_transformer.py").write_text("raise SystemExit")
    edit_json(broken / "model_index.json", **{part: value})
    error = refusal(broken)
    assert error.reason == "CHECKPOINT_UNSUPPORTED"
    assert f"component {part!r} is " in error.message
    assert "code from a model's folder is never run" in error.message


def test_an_unknown_component_is_refused(broken: Path) -> None:
    edit_json(broken / "model_index.json", upscaler=["diffusers", "UNet2DModel"])
    assert "Stable Audio has no component 'upscaler'" in refusal(broken).message


def test_a_missing_component_is_named(broken: Path) -> None:
    edit_json(broken / "model_index.json", vae=[None, None])
    assert "component 'vae' is missing" in refusal(broken).message


@pytest.mark.parametrize("name", ["model_index.json", "vae/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xff", b'{"a": ' * 100_000])
def test_a_missing_or_damaged_configuration_is_named(broken: Path, name: str, content: bytes | None) -> None:
    (broken / name).unlink() if content is None else (broken / name).write_bytes(content)
    error = refusal(broken)
    assert error.reason == ("CHECKPOINT_MISSING" if content is None else "CHECKPOINT_INVALID")
    assert name in error.message


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("text_encoder/config.json", {"num_layers": 10**9}),
        ("text_encoder/config.json", {"inner": {"deep": {"num_hidden_layers": 10**9}}}),
        ("transformer/config.json", {"num_layers": 513}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
    ],
)
def test_a_configuration_that_asks_for_endless_work_is_refused(
    broken: Path, name: str, change: dict[str, object]
) -> None:
    edit_json(broken / name, **change)
    error = refusal(broken)
    assert error.reason == "CHECKPOINT_INVALID"
    assert name in error.message
    assert "must be at most" in error.message
