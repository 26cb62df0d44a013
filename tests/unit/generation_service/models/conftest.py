"""A tiny T5 in the tests' Hugging Face cache, and tiny MusicGen checkpoints, written once per session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def t5() -> None:
    """Writes a tiny `t5-base` to the cache."""
    pytest.importorskip("transformers", reason="the text encoder is transformers'")
    from tests.support.checkpoints import write_t5

    write_t5(Path(os.environ["HF_HOME"]))


@pytest.fixture(scope="session")
def mono(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny mono model with 4 codebooks."""
    return _write(tmp_path_factory.mktemp("models") / "mono", stereo=False)


@pytest.fixture(scope="session")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny stereo model with 8 codebooks."""
    return _write(tmp_path_factory.mktemp("models") / "stereo", stereo=True)


def _write(folder: Path, *, stereo: bool) -> Path:
    pytest.importorskip("torch", reason="MusicGen needs torch")
    from tests.support.checkpoints import write_checkpoint

    write_checkpoint(folder, stereo=stereo)
    return folder


@pytest.fixture(scope="session")
def melody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny MusicGen-melody."""
    return _write_melody(tmp_path_factory.mktemp("models") / "melody", stereo=False)


@pytest.fixture(scope="session")
def stereo_melody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny stereo MusicGen-melody."""
    return _write_melody(tmp_path_factory.mktemp("models") / "stereo-melody", stereo=True)


@pytest.fixture(scope="session")
def style(tmp_path_factory: pytest.TempPathFactory, mert: None) -> Path:
    """Folder of a tiny MusicGen-Style, which reads MERT's features."""
    from tests.support.prefix_checkpoints import write_style_checkpoint

    path = tmp_path_factory.mktemp("models") / "style"
    write_style_checkpoint(path)
    return path


@pytest.fixture(scope="session")
def mert() -> None:
    """Writes a tiny MERT to the cache."""
    pytest.importorskip("transformers", reason="MERT's network is transformers' HuBERT")
    from tests.support.prefix_checkpoints import write_mert

    write_mert(Path(os.environ["HF_HOME"]))


def _write_melody(folder: Path, *, stereo: bool) -> Path:
    pytest.importorskip("torch", reason="MusicGen needs torch")
    from tests.support.prefix_checkpoints import write_melody_checkpoint

    write_melody_checkpoint(folder, stereo=stereo)
    return folder
