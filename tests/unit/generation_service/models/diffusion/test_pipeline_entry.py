"""Folders in diffusers' layout in the catalog."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dgx_music.errors import FailedPrecondition
from generation_service.config import GenerationSettings
from generation_service.models.diffusion.pipeline_entry import DiffusionFolder
from generation_service.models.discovery import find_installed_models


@pytest.fixture
def settings(tmp_path: Path, pipelines: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> GenerationSettings:
    """Those of a machine with a good and a bad folder of models, and one in the Hugging Face cache."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    models = tmp_path / "data" / "models"
    shutil.copytree(pipelines("ace-step-turbo"), models / "ace")
    shutil.copytree(pipelines("stable-audio"), models / "damaged")
    (models / "damaged" / "vae" / "config.json").unlink()
    cached = tmp_path / "hf" / "hub" / "models--stabilityai--stable-audio-open-1.0" / "snapshots" / ("c" * 40)
    shutil.copytree(pipelines("stable-audio"), cached)
    return GenerationSettings(data_dir=tmp_path / "data", devices="cpu")


def test_they_are_found_beside_other_models(settings: GenerationSettings) -> None:
    catalog = find_installed_models(settings)
    assert catalog.names == ("stable-audio-open-1.0", "ace", "damaged", "sketch")
    assert catalog.get("ace").describe().description.startswith("ACE-Step turbo, 2 layers")
    assert catalog.get("stable-audio-open-1.0").load().info.name == "stable-audio-open-1.0"
    with pytest.raises(FailedPrecondition, match=r"damaged/vae/config\.json: no such file"):
        catalog.get("damaged").describe()


def test_an_entry_changes_with_its_index(settings: GenerationSettings) -> None:
    before = find_installed_models(settings).get("ace")
    assert isinstance(before, DiffusionFolder)
    os.utime(before.folder / "model_index.json", ns=(1, 1))
    assert find_installed_models(settings).get("ace") != before
