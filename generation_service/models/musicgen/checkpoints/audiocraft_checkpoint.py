"""The files that audiocraft exports its models to: weights, and with them the configuration as YAML.

Each is a dict written by `torch.save`, with `best_state` (the tensors by name) and `xp.cfg`. Source: audiocraft 1.3.0,
`utils/export.py`, `models/loaders.py`. Reading a file executes nothing in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import (
    COMPRESSION_FILE,
    Checkpoint,
    StoredNetwork,
    invalid_checkpoint,
)
from generation_service.models.musicgen.checkpoints.hub_networks import open_hub_codec, open_hub_text_encoder
from generation_service.models.musicgen.checkpoints.pickle_file import (
    check_archive,
    file_digest,
    map_pickle,
    tensor_headers,
)
from generation_service.models.musicgen.checkpoints.xp_config import parse_xp_config


def read_audiocraft(path: Path) -> Checkpoint:
    """Raises FailedPrecondition if the file is missing, truncated, unsafe, or not an audiocraft checkpoint."""
    lm = _read_export(path)
    codec_file = path.with_name(COMPRESSION_FILE)
    digests = [file_digest(path)] + ([file_digest(codec_file)] if codec_file.exists() else [])
    return Checkpoint(
        path=lm.path,
        config=lm.config,
        headers=lm.headers,
        map_tensors=lm.map_tensors,
        digest="-".join(digests),
        layout="audiocraft",
        open_text_encoder=partial(open_hub_text_encoder, lm.config, path),
        open_codec=partial(read_audiocraft_codec, codec_file),
    )


def read_audiocraft_codec(path: Path, cache: Path | None = None) -> StoredNetwork:
    """A `compression_state_dict.bin`, which has the codec or, as `pretrained`, its name on the Hugging Face hub.

    `cache` is the Hugging Face cache in which names are looked up; the default is the user's. Nothing is downloaded.
    """
    check_archive(path)
    package = map_pickle(path)
    if isinstance(package, Mapping) and isinstance(package.get("pretrained"), str):
        return open_hub_codec(package["pretrained"], path, cache)
    return _read_export(path)


def _read_export(path: Path) -> StoredNetwork:
    package, digest = _map_package(path), file_digest(path)

    def map_tensors() -> Mapping[str, Tensor]:
        tensors: Mapping[str, Tensor] = _map_package(path)["best_state"]
        if file_digest(path) != digest:
            raise invalid_checkpoint(path, "the file was replaced during loading; load the model again")
        return tensors

    config = parse_xp_config(str(package["xp.cfg"]), path)
    return StoredNetwork(path, config, tensor_headers(package["best_state"], path), map_tensors)


def _map_package(path: Path) -> dict[str, Any]:
    """The saved dict. Its tensors are memory-mapped and read when they are used."""
    package = map_pickle(path)
    if not isinstance(package, dict) or "best_state" not in package or "xp.cfg" not in package:
        found = sorted(map(str, package))[:8] if isinstance(package, dict) else type(package).__name__
        raise invalid_checkpoint(path, f"expected best_state and xp.cfg, as audiocraft exports them; found {found}")
    if not isinstance(package["best_state"], dict):
        raise invalid_checkpoint(path, "best_state is not a mapping of tensors")
    return package
