# ruff: noqa: E402
"""Models of every kind are converted, and generate the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is from transformers")
constants = pytest.importorskip("huggingface_hub.constants", reason="it finds the text encoder")

from generation_service.config import GenerationSettings
from generation_service.models.base import Capability, FloatArray, GenerationParameters, StyleExcerpt
from generation_service.models.conversion import convert_model
from generation_service.models.discovery import find_installed_models
from tests.support.checkpoints import write_t5
from tests.support.prefix_checkpoints import write_melody_checkpoint, write_mert, write_style_checkpoint
from tests.support.sound_checkpoints import write_audiogen, write_magnet, write_t5_large

FRAMES = 6400
CLIP = np.sin(np.linspace(0, 8000, 64_000, dtype=np.float32))[:, None]


@pytest.fixture(scope="module")
def hf_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hf")
    write_t5(home)
    write_t5_large(home)
    write_mert(home)
    return home


def generate(settings: GenerationSettings, name: str) -> FloatArray:
    model = find_installed_models(settings, 0.0).get(name).load()
    can = model.info.capabilities
    parameters = GenerationParameters(
        prompt="calm piano",
        frames=FRAMES,
        seed=1,
        melody=CLIP if Capability.MELODY in can else None,
        style=StyleExcerpt(CLIP) if Capability.STYLE in can else None,
    )
    state = model.prefill(parameters)
    blocks: list[FloatArray] = []
    while sum(map(len, blocks)) < FRAMES:
        blocks += model.step([state])
    model.release(state)
    return np.concatenate(blocks)


@pytest.mark.parametrize(
    ("name", "write", "capability"),
    [
        pytest.param("audiogen-medium", write_audiogen, Capability.SECTIONS, marks=pytest.mark.slow),
        ("magnet-small-10secs", write_magnet, Capability.CONTINUATION),
        ("musicgen-melody", write_melody_checkpoint, Capability.MELODY),
        pytest.param("musicgen-style", write_style_checkpoint, Capability.STYLE, marks=pytest.mark.slow),
    ],
)
def test_converted_model_is_the_same(
    name: str,
    write: Callable[[Path], None],
    capability: Capability,
    hf_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{hf_home}/hub")
    settings = GenerationSettings(data_dir=tmp_path, devices="cpu")
    write(tmp_path / "models" / name)
    original = find_installed_models(settings, 0.0).get(name).describe()
    info = convert_model(name, tmp_path / "models" / "mine", None, settings, lambda *_: None)
    assert capability in info.capabilities
    assert info.capabilities == original.capabilities
    assert (info.licence, info.sample_rate_hz) == ("CC-BY-NC-4.0", original.sample_rate_hz)
    assert np.array_equal(generate(settings, "mine"), generate(settings, name))
