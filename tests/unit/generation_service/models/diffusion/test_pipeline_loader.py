"""What a folder says before it is loaded, and why one is not loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dgx_music.errors import FailedPrecondition
from generation_service.hardware.memory import DeviceMemory
from generation_service.models.base import Capability
from generation_service.models.diffusion import pipeline_loader
from generation_service.models.diffusion.pipeline_loader import find_pipeline, load_pipeline


def test_a_model_is_described_without_its_weights(pipelines: Callable[[str], Path]) -> None:
    info = find_pipeline(pipelines("stable-audio"), name="stable-audio-open-1.0").info
    assert (info.name, info.sample_rate_hz, info.channels) == ("stable-audio-open-1.0", 8000, 2)
    assert info.licence == "LicenseRef-stable-audio-community"
    assert info.max_duration_seconds == 0.96
    assert info.description == "Stable Audio, 2 layers, latent diffusion, 0.0 GB in fp32."
    assert info.default_guidance_scale == 7.0
    assert info.capabilities == {Capability.STEPS, Capability.NEGATIVE_PROMPT}
    assert info.version.endswith("-diffusers0.42.1-cpu-fp32")


def test_weights_in_half_precision_need_half_the_memory_but_for_the_autoencoder(
    pipelines: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_pipeline(pipelines("stable-audio"))
    vae = found.pipeline.weights["vae"].elements
    assert found.weight_bytes == 4 * found.pipeline.elements
    monkeypatch.setattr(pipeline_loader, "resolve_device", lambda *_: ("cuda", "bf16"))
    assert find_pipeline(pipelines("stable-audio")).weight_bytes == 2 * found.pipeline.elements + 2 * vae


def test_a_model_larger_than_the_memory_is_refused_before_it_is_read(
    pipelines: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_loader, "host_memory", lambda: DeviceMemory(1 << 30, 8 << 30))
    with pytest.raises(FailedPrecondition, match=r"needs 1\.1 GB, 0\.0 of them .* but only 1\.1 GB are free") as caught:
        load_pipeline(find_pipeline(pipelines("stable-audio")))
    assert caught.value.reason == "MEMORY"


def test_a_precision_that_diffusers_lacks_is_refused(pipelines: Callable[[str], Path]) -> None:
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_PRECISION is int8, which diffusion models do not support"):
        find_pipeline(pipelines("stable-audio"), precision="int8")


def test_a_missing_library_is_named_with_its_command(
    pipelines: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = metadata.version

    def find_version(name: str) -> str:
        if name == "torchsde":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", find_version)
    with pytest.raises(FailedPrecondition, match=r"need torchsde, .* -m pip install 'dgx-music\[diffusion\]'"):
        find_pipeline(pipelines("stable-audio"))


def test_weights_that_the_library_would_draw_at_random_are_refused(broken: Path) -> None:
    path = broken / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.block.0.layer.0.SelfAttention.q.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(
        FailedPrecondition, match=r"the weights lack tensor 'encoder\.block\.0\.layer\.0\.SelfAttention\.q"
    ):
        load_pipeline(find_pipeline(broken))


def test_a_tokenizer_of_another_vocabulary_is_refused(broken: Path, pipelines: Callable[[str], Path]) -> None:
    for file in (broken / "tokenizer").iterdir():
        file.unlink()
    for file in (pipelines("ace-step") / "tokenizer").iterdir():
        (broken / "tokenizer" / file.name).write_bytes(file.read_bytes())
    index = json.loads((broken / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "TokenizersBackend"]
    (broken / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(FailedPrecondition, match="the tokenizer has 257 tokens, but the text encoder embeds only 128"):
        load_pipeline(find_pipeline(broken))


def test_a_folder_that_the_library_can_not_load_is_refused(broken: Path) -> None:
    (broken / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(FailedPrecondition, match="diffusers can't load it") as caught:
        load_pipeline(find_pipeline(broken))
    assert caught.value.reason == "CHECKPOINT_INVALID"


@pytest.mark.parametrize(
    ("part", "file", "fields"),
    [
        ("scheduler", "scheduler_config.json", {"shift_terminal": True}),
        ("scheduler", "scheduler_config.json", {"num_train_timesteps": "x"}),
    ],
)
def test_settings_that_would_fail_in_a_request_are_refused_at_load(
    pipelines: Callable[[str], Path], tmp_path: Path, part: str, file: str, fields: dict[str, object]
) -> None:
    folder = shutil.copytree(pipelines("ace-step"), tmp_path / "model")
    path = folder / part / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(FailedPrecondition, match=r"fails|can't load") as caught:
        load_pipeline(find_pipeline(folder))
    assert caught.value.reason == "CHECKPOINT_INVALID"
