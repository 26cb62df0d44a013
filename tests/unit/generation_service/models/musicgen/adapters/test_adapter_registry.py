# ruff: noqa: E402
"""The installed adapters for one model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import InvalidArgument
from generation_service.models.base import AdapterUse
from generation_service.models.musicgen.adapters import adapter_registry
from generation_service.models.musicgen.adapters.adapter_registry import AdapterRegistry
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from tests.support.adapter_files import FC1, write_adapter_files


def write(folder: Path, value: float = 1.0, inputs: int = 64) -> Path:
    factors = {"lora_A": torch.full((2, inputs), value), "lora_B": torch.ones(256, 2)}
    return write_adapter_files(folder, {f"{FC1}.{name}.weight": tensor for name, tensor in factors.items()})


@pytest.fixture
def registry(tmp_path: Path, mono: Path) -> AdapterRegistry:
    write(tmp_path / "vinyl")
    write(tmp_path / "jazz")
    write(tmp_path / "large", inputs=1024)
    checkpoint = read_checkpoint(mono)
    return AdapterRegistry(tmp_path, "tiny", parse_lm_config(checkpoint), checkpoint.headers)


def test_adapters_are_loaded_once_and_sorted_by_name(registry: AdapterRegistry) -> None:
    vinyl, jazz = AdapterUse("vinyl", 0.5), AdapterUse("jazz")
    loaded = registry.load([vinyl, jazz])
    assert [(each.weights.name, each.scale) for each in loaded] == [("jazz", 1.0), ("vinyl", 0.5)]
    assert registry.load([jazz])[0].weights is loaded[0].weights
    assert registry.load([]) == ()


def test_adapter_whose_files_changed_is_another(registry: AdapterRegistry, tmp_path: Path) -> None:
    (first,) = registry.load([AdapterUse("jazz")])
    write(tmp_path / "jazz", value=2.0)
    (second,) = registry.load([AdapterUse("jazz")])
    assert first.weights.digest != second.weights.digest
    assert float(second.weights.layers["0.up"].a[0, 0]) == 2.0


def test_those_not_used_for_long_are_dropped(registry: AdapterRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    (jazz,) = registry.load([AdapterUse("jazz")])
    monkeypatch.setattr(adapter_registry, "MAX_CACHED_BYTES", jazz.weights.size_bytes)
    (vinyl,) = registry.load([AdapterUse("vinyl")])
    assert registry.load([AdapterUse("vinyl")])[0].weights is vinyl.weights
    assert registry.load([AdapterUse("jazz")])[0].weights is not jazz.weights
    monkeypatch.setattr(adapter_registry, "MAX_CACHED_BYTES", 1)
    (vinyl,) = registry.load([AdapterUse("vinyl")])
    assert registry.load([AdapterUse("vinyl")])[0].weights is vinyl.weights, "the last one is kept, however large"


def test_file_that_can_not_be_read_is_named(registry: AdapterRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> str:
        raise OSError(5, "Input/output error", str(folder))

    monkeypatch.setattr(adapter_registry, "adapter_digest", fail)
    with pytest.raises(InvalidArgument, match=r"can't take the adapter 'jazz': can't be read .*Input/output error"):
        registry.load([AdapterUse("jazz")])


def test_problems_say_why_an_adapter_does_not_fit(registry: AdapterRegistry, tmp_path: Path) -> None:
    problems = registry.problems()
    assert list(problems) == ["jazz", "large", "vinyl"]
    assert problems["jazz"] == problems["vinyl"] == ""
    assert "fc1.lora_A.weight has the shape [2, 1024]" in problems["large"]
    shutil.rmtree(tmp_path / "large")
    write(tmp_path / "large")
    assert registry.problems()["large"] == "", "found out again after the files have changed"


@pytest.mark.parametrize(
    ("name", "reason", "problem"),
    [
        ("rock", "ADAPTER_NOT_FOUND", r"there is no adapter 'rock'; adapters for model 'tiny': jazz, vinyl"),
        ("../vinyl", "ADAPTER_NOT_FOUND", "there is no adapter '../vinyl'"),
        ("large", "ADAPTER_UNUSABLE", "model 'tiny' can't take the adapter 'large': .*lora_A.weight has the shape"),
    ],
)
def test_errors_name_the_field(registry: AdapterRegistry, name: str, reason: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem) as caught:
        registry.load([AdapterUse("jazz"), AdapterUse(name)])
    assert (caught.value.field, caught.value.reason) == ("conditioning.adapters[1].name", reason)


def test_without_a_folder_nothing_is_installed(mono: Path) -> None:
    checkpoint = read_checkpoint(mono)
    registry = AdapterRegistry(None, "tiny", parse_lm_config(checkpoint), checkpoint.headers)
    assert registry.problems() == {}
    with pytest.raises(InvalidArgument, match="none is installed for model 'tiny'"):
        registry.load([AdapterUse("jazz")])


def test_adapter_of_the_projection_of_melodies_can_only_be_merged(tmp_path: Path, melody: Path) -> None:
    checkpoint = read_checkpoint(melody)
    config = parse_lm_config(checkpoint)
    weight = "condition_provider.conditioners.self_wav.output_proj.weight"
    outputs, inputs = checkpoint.headers[weight].shape
    name = "base_model.model.audio_enc_to_dec_proj"
    factors = {f"{name}.lora_A.weight": torch.ones(2, inputs), f"{name}.lora_B.weight": torch.ones(outputs, 2)}
    write_adapter_files(tmp_path / "tune", factors, target_modules=["audio_enc_to_dec_proj"])
    registry, use = AdapterRegistry(tmp_path, "melody", config, checkpoint.headers), AdapterUse("tune", 0.5)
    with pytest.raises(InvalidArgument, match="merge it with `dgx-music models convert melody --adapter tune --name"):
        registry.load([use])
    merged = registry.merge(checkpoint, [use]).map_tensors()[weight]
    torch.testing.assert_close(merged, checkpoint.map_tensors()[weight].float() + 1)
