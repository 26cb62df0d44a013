"""The folders that hold models on this machine, found by the names of their files; none of these is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from generation_service.config import GenerationSettings
from generation_service.models.published import PUBLISHED
from service_runtime.validation import is_name

INDEX_FILES = {
    "state_dict.bin": "audiocraft",
    "checkpoint.th": "audiocraft, from training",
    "model_index.json": "diffusers",
    "model.safetensors": "transformers",
    "model.safetensors.index.json": "transformers, in several files",
}
"""The file by which a model's folder is known → its layout. Of several, the first is read."""


def installed_folders(settings: GenerationSettings) -> Iterator[tuple[str, Path]]:
    """The name and the folder of each model, the default one first. Of the same names, the first counts."""
    for folder in settings.model_folders:
        # Listed even if it is empty, so that the user sees what is wrong with it.
        if is_name(name := folder.resolve().name):
            yield name, folder
    local = local_folders(settings.data_dir / "models")
    for name, published in PUBLISHED.items():
        found = local.pop(name, None) or find_hub_snapshot(published.repository)
        if found is not None:
            yield name, found
    yield from local.items()


def local_folders(models: Path) -> dict[str, Path]:
    """The models' folders in a folder, by name. None if it can't be read, and none with a name that no request could
    have."""
    try:
        return {
            folder.name: folder for folder in sorted(models.iterdir()) if is_name(folder.name) and find_layout(folder)
        }
    except OSError:
        return {}


def find_layout(folder: Path) -> str:
    """The layout of a model's folder, in words, or "". Converted models are in transformers' files."""
    try:
        return next((layout for file, layout in INDEX_FILES.items() if (folder / file).is_file()), "")
    except OSError:  # Not allowed, for example.
        return ""


def weights_mtime_ns(folder: Path) -> int:
    """The modification time of the file by which the model is known; 0 if there is no such file."""
    for file in INDEX_FILES:
        try:
            return (folder / file).stat().st_mtime_ns
        except OSError:
            continue
    return 0


def find_hub_snapshot(repository: str) -> Path | None:
    """Returns a model's folder in the Hugging Face cache: the revision that "main" pointed to when it was downloaded,
    else the newest. None if there is none.

    The cache layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    cached = _hub_cache_folder() / f"models--{repository.replace('/', '--')}"
    try:
        snapshots = [folder for folder in (cached / "snapshots").iterdir() if find_layout(folder)]
    except OSError:
        return None
    try:
        main = (cached / "refs" / "main").read_text().strip()
    except OSError:
        main = ""
    return max(snapshots, key=lambda folder: (folder.name == main, folder.stat().st_mtime_ns), default=None)


def _hub_cache_folder() -> Path:
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    if home := os.environ.get("HF_HOME"):
        return Path(home) / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface" / "hub"
