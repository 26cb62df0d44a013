"""A Hugging Face cache with a tiny T5, and tiny checkpoints, written once a session.

Libraries read HF_HOME when they are first imported, so it is set before any test module is.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

HF_HOME = Path(tempfile.mkdtemp(prefix="dgx-music-hf-"))
atexit.register(shutil.rmtree, HF_HOME, ignore_errors=True)
os.environ["HF_HOME"] = str(HF_HOME)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@pytest.fixture(scope="session")
def t5() -> None:
    """`t5-base`, tiny, in the cache."""
    pytest.importorskip("transformers", reason="the text encoder is transformers'")
    from tests.checkpoints import write_t5

    write_t5(HF_HOME)


@pytest.fixture(scope="session")
def mono(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model, 4 codebooks."""
    return _write(tmp_path_factory.mktemp("models") / "mono", stereo=False)


@pytest.fixture(scope="session")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model, 8 codebooks."""
    return _write(tmp_path_factory.mktemp("models") / "stereo", stereo=True)


def _write(folder: Path, *, stereo: bool) -> Path:
    pytest.importorskip("torch", reason="MusicGen needs torch")
    from tests.checkpoints import write_checkpoint

    write_checkpoint(folder, stereo=stereo)
    return folder
