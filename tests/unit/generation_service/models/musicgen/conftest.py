"""The tiny models of `tests.support.checkpoints`, mono and stereo, and MusicGen loaded from them with
short windows and each code generator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from generation_service.models.musicgen.model import MusicGen


@pytest.fixture(scope="module", params=["mono", "stereo"])
def folder(request: pytest.FixtureRequest) -> Path:
    """Folder of each of the two tiny models."""
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture(scope="module", params=["eager", "resident"])
def generator(request: pytest.FixtureRequest) -> str:
    """Name of each of the two code generators."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def model(folder: Path, generator: str, t5: None) -> MusicGen:
    """The model of `folder`, with short windows."""
    from tests.support.musicgen_runs import load_with_short_window

    return load_with_short_window(folder, generator)
