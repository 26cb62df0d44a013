"""Tiny pipelines as diffusers writes them, and the models that run them."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the pipelines are those of diffusers")

from generation_service.models.diffusion.diffusion_model import DiffusionModel
from generation_service.models.diffusion.pipeline_loader import find_pipeline, load_pipeline
from tests.support import diffusion_pipelines

FAMILIES: dict[str, Callable[[Path], Path]] = {
    "stable-audio": diffusion_pipelines.write_stable_audio,
    "stable-audio-3": diffusion_pipelines.write_stable_audio_3,
    "stable-audio-3-base": lambda folder: diffusion_pipelines.write_stable_audio_3(folder, is_distilled=False),
    "ace-step": diffusion_pipelines.write_ace_step,
    "ace-step-turbo": lambda folder: diffusion_pipelines.write_ace_step(folder, is_turbo=True),
}


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the folder of a family's tiny pipeline. It must not be changed."""
    root = tmp_path_factory.mktemp("pipelines")

    def find(family: str) -> Path:
        folder = root / family
        if not folder.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # The autoencoder's layers are deprecated in torch.
                FAMILIES[family](folder)
        return folder

    return find


@pytest.fixture(scope="session")
def load(pipelines: Callable[[str], Path]) -> Callable[[str], DiffusionModel]:
    """Returns the model of a family, which decodes audio in pieces of 0.3 s."""
    models: dict[str, DiffusionModel] = {}

    def load(family: str) -> DiffusionModel:
        if family not in models:
            models[family] = load_pipeline(find_pipeline(pipelines(family)), piece_seconds=0.3)
        return models[family]

    return load


@pytest.fixture
def broken(pipelines: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a Stable Audio folder for the test to break."""
    return shutil.copytree(pipelines("stable-audio"), tmp_path / "broken")
