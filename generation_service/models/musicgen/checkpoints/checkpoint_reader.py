"""Reads a checkpoint in whichever layout its folder has."""

from __future__ import annotations

from pathlib import Path

from generation_service.models.musicgen.checkpoints.audiocraft_checkpoint import read_audiocraft
from generation_service.models.musicgen.checkpoints.checkpoint import (
    COMPRESSION_FILE,
    LM_FILE,
    Checkpoint,
    missing_checkpoint,
)
from generation_service.models.musicgen.checkpoints.converted_checkpoint import is_converted, read_converted
from generation_service.models.musicgen.checkpoints.hub_networks import CONFIG_FILE
from generation_service.models.musicgen.checkpoints.safetensors_file import read_json
from generation_service.models.musicgen.checkpoints.training_checkpoint import TRAINING_FILE, read_training
from generation_service.models.musicgen.checkpoints.transformers_checkpoint import read_transformers


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads the configuration and the headers, but not the tensors, of the language model in a folder, or in a file of
    audiocraft's.

    A folder with several layouts, as the published repositories are, is read as audiocraft's. Raises FailedPrecondition
    if files are missing, truncated, unsafe, or of another kind.
    """
    if path.is_file():
        return read_training(path) if path.name == TRAINING_FILE else read_audiocraft(path)
    if (path / LM_FILE).exists():
        return read_audiocraft(path / LM_FILE)
    if (path / TRAINING_FILE).exists():
        return read_training(path / TRAINING_FILE)
    if (path / CONFIG_FILE).exists():
        config = read_json(path / CONFIG_FILE, "the configuration of a model")
        return read_converted(path) if is_converted(config) else read_transformers(path)
    raise missing_checkpoint(
        path / LM_FILE,
        f"no such file; expected a folder with audiocraft's {LM_FILE} and {COMPRESSION_FILE}, with transformers' "
        f"{CONFIG_FILE} and safetensors, or with {TRAINING_FILE} of audiocraft's training",
    )
