"""Reads a checkpoint in whichever layout its folder has."""

from __future__ import annotations

from pathlib import Path

from generation_service.models.musicgen.checkpoints.audiocraft_checkpoint import read_audiocraft
from generation_service.models.musicgen.checkpoints.checkpoint import LM_FILE, Checkpoint


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads the configuration and the headers, but not the tensors, of the language model in a folder or a file.

    Raises FailedPrecondition if files are missing, truncated, unsafe, or of another kind.
    """
    return read_audiocraft(path if path.is_file() else path / LM_FILE)
