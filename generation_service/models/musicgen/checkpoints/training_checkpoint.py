"""A checkpoint of audiocraft's training: `checkpoint.th`, with the best weights so far beside the optimizer's state.

`best_state` has the weights of each module by its name; with fully sharded training they are in `fsdp_best_state`.
`xp.cfg` is a pickled OmegaConf object: classes without any code stand for OmegaConf's, and only values are taken from
them. The codec is not in the file: `compression_model_checkpoint` says where the training found it. Source: audiocraft
1.3.0, `utils/export.py` and `solvers/base.py`; flashy 0.0.2, `solver.py`.
"""

from __future__ import annotations

import collections
import itertools
import typing
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from generation_service.models.musicgen.checkpoints.audiocraft_checkpoint import read_audiocraft_codec
from generation_service.models.musicgen.checkpoints.checkpoint import (
    COMPRESSION_FILE,
    Checkpoint,
    StoredNetwork,
    invalid_checkpoint,
    missing_checkpoint,
)
from generation_service.models.musicgen.checkpoints.hub_networks import open_hub_codec, open_hub_text_encoder
from generation_service.models.musicgen.checkpoints.pickle_file import file_digest, map_pickle, tensor_headers
from generation_service.models.musicgen.checkpoints.xp_config import parse_xp_config, resolve_references

TRAINING_FILE = "checkpoint.th"
_PRETRAINED = "//pretrained/"
"""What a codec's location begins with that is a name on the hub."""
_BEST_STATES = ("fsdp_best_state", "best_state")
_MAX_DEPTH, _MAX_NODES = 32, 100_000


class _Container:
    """Stands for OmegaConf's mappings and lists. The unpickler sets its attributes."""

    _content: Any


class _Node:
    """Stands for OmegaConf's values."""

    _val: Any


class _Ignored:
    """Stands for what has no value of the configuration."""


_INERT: tuple[tuple[type, str], ...] = (
    (_Container, "omegaconf.dictconfig.DictConfig"),
    (_Container, "omegaconf.listconfig.ListConfig"),
    *((_Node, f"omegaconf.nodes.{kind}Node") for kind in ("Any", "String", "Integer", "Float", "Boolean")),
    (_Ignored, "omegaconf.base.ContainerMetadata"),
    (_Ignored, "omegaconf.base.Metadata"),
    (_Ignored, "typing.Any"),
    (collections.defaultdict, "collections.defaultdict"),
    *((kind, f"builtins.{kind.__name__}") for kind in (dict, list, int, float, str, bool)),
)


def read_training(path: Path) -> Checkpoint:
    """Raises FailedPrecondition if the file is truncated, unsafe, or not of a language model's training."""
    package, digest = _map_package(path), file_digest(path)
    state, config = _best_state(package, path), _config(package.get("xp.cfg"), path)
    codec_file = path.with_name(COMPRESSION_FILE)
    digests = [digest] + ([file_digest(codec_file)] if codec_file.exists() else [])

    def map_tensors() -> Mapping[str, Tensor]:
        tensors = _best_state(_map_package(path), path)
        if file_digest(path) != digest:
            raise invalid_checkpoint(path, "the file was replaced during loading; load the model again")
        return tensors

    return Checkpoint(
        path=path,
        config=config,
        headers=tensor_headers(state, path),
        map_tensors=map_tensors,
        digest="-".join(digests),
        layout="training",
        open_text_encoder=partial(open_hub_text_encoder, config, path),
        open_codec=partial(_open_codec, config, path, codec_file),
    )


def _open_codec(config: Mapping[str, Any], path: Path, codec_file: Path) -> StoredNetwork:
    if codec_file.exists():
        return read_audiocraft_codec(codec_file)
    location = str(config.get("compression_model_checkpoint"))
    if location.startswith(_PRETRAINED):
        return open_hub_codec(location.removeprefix(_PRETRAINED), path)
    raise missing_checkpoint(
        codec_file,
        f"no such file; the model was trained with the codec {location[:200]!r}: export it to this file by "
        "audiocraft.utils.export.export_encodec",
    )


def _map_package(path: Path) -> Mapping[str, Any]:
    package = map_pickle(path, _INERT)
    if not isinstance(package, dict) or not any(key in package for key in _BEST_STATES) or "xp.cfg" not in package:
        found = sorted(map(str, package))[:8] if isinstance(package, dict) else type(package).__name__
        problem = f"expected best_state and xp.cfg, as audiocraft's training saves them; found {found}"
        raise invalid_checkpoint(path, problem)
    return package


def _best_state(package: Mapping[str, Any], path: Path) -> Mapping[str, Tensor]:
    """The weights that `export_lm` would export."""
    states = [package[key] for key in _BEST_STATES if package.get(key)]
    state = states[0].get("model") if states and isinstance(states[0], Mapping) else None
    if not isinstance(state, Mapping):
        raise invalid_checkpoint(path, "its best_state has no model with a mapping of tensors")
    return typing.cast(Mapping[str, Tensor], state)


def _config(stored: object, path: Path) -> dict[str, Any]:
    if isinstance(stored, str):  # As in an export.
        return parse_xp_config(stored, path)
    return resolve_references(_values(stored, path, 0, itertools.count()), path)


def _values(node: object, path: Path, depth: int, nodes: Iterator[int]) -> Any:
    """The plain values of OmegaConf's nodes."""
    if depth > _MAX_DEPTH or next(nodes) > _MAX_NODES:  # A pickle can have the same node in many places.
        problem = f"xp.cfg has more than {_MAX_NODES:,} values, or is nested more than {_MAX_DEPTH} deep"
        raise invalid_checkpoint(path, problem)
    content = getattr(node, "_content", node) if isinstance(node, _Container) else node
    if isinstance(content, dict):
        return {str(key): _values(value, path, depth + 1, nodes) for key, value in content.items()}
    if isinstance(content, list):
        return [_values(value, path, depth + 1, nodes) for value in content]
    return getattr(content, "_val", None) if isinstance(content, _Node) else content
