"""Finds out what a folder in diffusers' layout holds, by its configurations and the headers of its weights alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgx_music.errors import FailedPrecondition
from generation_service.models.diffusion.pipeline_families import FAMILIES, MAX_LAYERS, Configs, Family, PipelineFacts
from generation_service.models.diffusion.pipeline_weights import ComponentWeights, read_weights
from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint
from generation_service.models.musicgen.checkpoints.safetensors_file import read_json

INDEX_FILE = "model_index.json"
_CONFIG_FILES = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
_REPEATED = ("layers", "blocks", "depth", "depths")
"""How the names of settings end that say how often something is repeated."""
_MAX_TRAIN_STEPS = 100_000
_EXPECTED = "a folder as diffusers' save_pretrained writes it"


@dataclass(frozen=True, slots=True)
class PipelineFolder:
    """A pipeline whose files are present and consistent. Its weights are not in memory."""

    folder: Path
    class_name: str
    family: Family
    classes: Mapping[str, str]
    """Component → its class."""
    configs: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, ComponentWeights]
    facts: PipelineFacts
    digest: str
    """16 hexadecimal digits that change with the weights or the configurations."""

    @property
    def elements(self) -> int:
        """The number of all parameters."""
        return sum(weights.elements for weights in self.weights.values())


def read_pipeline_folder(folder: Path) -> PipelineFolder:
    """Reads the configurations and the headers of the weights.

    Raises FailedPrecondition if a file is missing, damaged, or of a pipeline or a component that this engine does not
    know. Nothing that the folder contains is ever imported or run.
    """
    index = read_json(folder / INDEX_FILE, _EXPECTED)
    class_name = index.get("_class_name")
    family = FAMILIES.get(class_name) if isinstance(class_name, str) else None
    if family is None:
        raise FailedPrecondition(
            f"{folder / INDEX_FILE}: the pipeline {str(class_name)[:100]!r} is not supported; supported are "
            + ", ".join(FAMILIES),
            reason="CHECKPOINT_UNSUPPORTED",
        )
    classes = _read_classes(folder / INDEX_FILE, index, family)
    configs = {part: _read_config(folder, part) for part in family.parts}
    weights = {
        part: read_weights(folder / part, "transformers" if each.library == "transformers" else "diffusers")
        for part, each in family.parts.items()
        if part != "scheduler" and not each.is_tokenizer
    }
    digest = hashlib.blake2b(json.dumps([class_name, classes, configs], sort_keys=True).encode(), digest_size=8)
    for part in sorted(weights):
        digest.update(weights[part].digest.encode())
    facts = family.read(Configs(folder, configs))
    return PipelineFolder(folder, str(class_name), family, classes, configs, weights, facts, digest.hexdigest())


def _read_classes(path: Path, index: Mapping[str, Any], family: Family) -> dict[str, str]:
    classes: dict[str, str] = {}
    for part, value in index.items():
        if part.startswith("_") or part in family.unused_parts or value == [None, None]:
            continue
        expected = family.parts.get(part)
        if expected is None:
            if isinstance(value, list):
                raise invalid_checkpoint(path, f"{family.title} has no component {part[:100]!r}")
            continue  # A parameter of the pipeline.
        if not isinstance(value, list) or len(value) != 2 or not expected.accepts(*value):
            raise FailedPrecondition(
                f"{path}: component {part!r} is {str(value)[:200]}, which is not supported; it must be "
                f"{_expected_classes(expected)}, because code from a model's folder is never run",
                reason="CHECKPOINT_UNSUPPORTED",
            )
        classes[part] = value[1]
    for part in family.parts:
        if part not in classes:
            raise invalid_checkpoint(path, f"component {part!r} is missing")
    return classes


def _expected_classes(part: Any) -> str:
    return f"{part.library}'s {' or '.join(part.class_names) or 'tokenizer'}"


def _read_config(folder: Path, part: str) -> dict[str, Any]:
    path = folder / part / _CONFIG_FILES.get(part, "config.json")
    config = read_json(path, _EXPECTED)
    _check_sizes(path, config)
    return config


def _check_sizes(path: Path, config: Mapping[str, Any], depth: int = 0) -> None:
    """Raises FailedPrecondition if building the component, even without its weights, would take long."""
    for key, value in config.items():
        if isinstance(value, dict) and depth < 4:
            _check_sizes(path, value, depth + 1)
            continue
        limit = MAX_LAYERS if key.endswith(_REPEATED) else _MAX_TRAIN_STEPS if key == "num_train_timesteps" else None
        for number in value if isinstance(value, list) else [value]:
            if limit is not None and isinstance(number, int | float) and not number <= limit:
                raise invalid_checkpoint(path, f"{key} must be at most {limit}, not {number}")
