"""Converts an installed model to this project's own layout, which loads fastest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from dgx_music.errors import FailedPrecondition, InvalidArgument
from generation_service.config import GenerationSettings
from generation_service.models.base import AdapterUse, ModelInfo
from generation_service.models.discovery import MusicGenFolder, find_installed_models
from generation_service.models.model_folders import weights_mtime_ns

StoredPrecision = Literal["fp32", "bf16", "fp16"]


def convert_model(
    name: str,
    target: Path,
    precision: StoredPrecision | None,
    settings: GenerationSettings,
    before_writing: Callable[[Path, int], None],
    adapters: Sequence[AdapterUse] = (),
) -> ModelInfo:
    """Writes the model to the folder `target`, which must not exist, and returns its properties. `adapters` are merged
    into its weights.

    `precision` is that of the language model's weights in the file; without it they keep the one they have.
    `before_writing` is called with the folder and the size in bytes, and may raise. Raises ServiceError if
    there is no such model, if its files are unusable or if it is of a kind that has no other layout.
    """
    if target.exists():
        raise FailedPrecondition(f"{target} exists; remove the model, or choose another name", reason="MODEL_EXISTS")
    entry = find_installed_models(settings.model_copy(update={"default_model": None}), 0.0).get(name)
    if not isinstance(entry, MusicGenFolder):
        problem = f"model {name!r} can't be converted; only checkpoints of MusicGen, AudioGen and MAGNeT can"
        raise InvalidArgument("name", problem)
    info = entry.describe()
    from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
    from generation_service.models.musicgen.checkpoints.converted_checkpoint import converted_bytes, write_converted

    checkpoint = read_checkpoint(entry.folder)
    source = {"model": name, "version": checkpoint.digest, "licence": info.licence}
    if adapters:
        checkpoint = entry.merge_adapters(checkpoint, adapters)
        source["adapters"] = ", ".join(f"{adapter.name}:{adapter.scale:g}" for adapter in adapters)
    before_writing(target, converted_bytes(checkpoint, precision))
    write_converted(checkpoint, target, precision, source)
    return replace(entry, name=target.name, folder=target, weights_mtime_ns=weights_mtime_ns(target)).describe()
