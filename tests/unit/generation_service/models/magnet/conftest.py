"""Tiny MAGNeT models, for music and for sounds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from generation_service.models.magnet.magnet_model import Magnet


@pytest.fixture(scope="session", params=["magnet", "audio-magnet"])
def folder(request: pytest.FixtureRequest, t5: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of each of the two tiny models."""
    pytest.importorskip("torch", reason="MAGNeT needs torch")
    from tests.support.sound_checkpoints import write_magnet, write_t5_large

    write_t5_large(Path(os.environ["HF_HOME"]))
    folder = tmp_path_factory.mktemp("models") / str(request.param)
    write_magnet(folder, is_sound=folder.name == "audio-magnet")
    return folder


@pytest.fixture(scope="session")
def model(folder: Path) -> Magnet:
    from generation_service.models.magnet.magnet_loader import load_magnet
    from tests.support.magnet_runs import find

    return load_magnet(find(folder))
