"""The files that audiocraft exports its models in: weights, and beside them the configuration as YAML.

`torch.save` of a dict with `best_state` (the tensors by name) and `xp.cfg` (an OmegaConf dump, with `${…}` references
unresolved). Source: audiocraft 1.3.0, `utils/export.py`, `models/loaders.py`. Nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from dgx_music.errors import FailedPrecondition

LM_FILE = "state_dict.bin"
COMPRESSION_FILE = "compression_state_dict.bin"

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_MAX_REFERENCES = 16
"""Depth of references to references; more is a cycle."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file holds, but for its tensors, which stay in the file."""

    path: Path
    state: Callable[[], Mapping[str, Tensor]]
    """Maps the tensors anew. What is read of them stays in memory while one of them is held, so a model is loaded part
    by part, each from a mapping of its own. Raises FailedPrecondition where the file is another by now."""
    config: Mapping[str, Any]
    """`xp.cfg`, references resolved."""
    digest: str
    """Changes with the content: 16 hexadecimal digits."""


def refuse(path: Path, problem: str) -> FailedPrecondition:
    """The error for a file that can't be used: which, and what of it."""
    return FailedPrecondition(f"{path}: {problem}", reason="CHECKPOINT_INVALID", metadata={"file": str(path)})


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises FailedPrecondition for a file that is missing, truncated or no checkpoint of audiocraft's."""
    package, digest = _map(path), file_digest(path)

    def state() -> Mapping[str, Tensor]:
        tensors: Mapping[str, Tensor] = _map(path)["best_state"]
        if file_digest(path) != digest:
            raise refuse(path, "has been written anew while the model was loaded from it; load it again")
        return tensors

    return Checkpoint(path, state, parse_config(str(package["xp.cfg"]), path), digest)


def _map(path: Path) -> dict[str, Any]:
    """What was saved; tensors are read when they are used."""
    check_archive(path)
    try:
        package = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # The unpickler raises what it likes for a foreign or damaged file.
        cause = str(error).partition("\n")[0][:200]
        raise refuse(path, f"can't be read as weights ({cause}); expected audiocraft's export") from error
    if not isinstance(package, dict) or "best_state" not in package or "xp.cfg" not in package:
        found = sorted(map(str, package))[:8] if isinstance(package, dict) else type(package).__name__
        raise refuse(path, f"expected audiocraft's best_state and xp.cfg, found {found}")
    state = package["best_state"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise refuse(path, "best_state is no mapping of tensors")
    return package


def check_archive(path: Path) -> None:
    """Raises FailedPrecondition where there is no file, or none that torch.save finished writing."""
    if not path.is_file():
        raise FailedPrecondition(
            f"{path}: no such file; expected a folder with audiocraft's {LM_FILE} and {COMPRESSION_FILE}",
            reason="CHECKPOINT_MISSING",
            metadata={"file": str(path)},
        )
    if not zipfile.is_zipfile(path):
        raise refuse(path, "truncated, or not written by torch.save; expected audiocraft's export, download it again")


def parse_config(text: str, path: Path) -> dict[str, Any]:
    """`xp.cfg` as nested dicts and lists, `${a.b}` replaced by what stands at a.b."""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise refuse(path, "xp.cfg is no YAML") from error
    if not isinstance(config, dict):
        raise refuse(path, "xp.cfg is no mapping")
    resolved: dict[str, Any] = _resolve(config, config, path, 0)
    return resolved


def _resolve(node: Any, root: Mapping[str, Any], path: Path, depth: int) -> Any:
    if isinstance(node, dict):
        return {key: _resolve(value, root, path, depth) for key, value in node.items()}
    if isinstance(node, list):
        return [_resolve(value, root, path, depth) for value in node]
    if not isinstance(node, str) or (reference := _REFERENCE.fullmatch(node)) is None:
        return node
    if depth == _MAX_REFERENCES:
        raise refuse(path, f"xp.cfg's {node} refers to itself")
    target: Any = root
    for key in reference[1].split("."):
        if not isinstance(target, Mapping) or key not in target:
            return node  # Of training, such as a path on the cluster: what is needed is checked by who needs it.
        target = target[key]
    return _resolve(target, root, path, depth + 1)


def file_digest(path: Path) -> str:
    """16 hexadecimal digits of the archive's directory, which has a CRC-32 of every tensor: as good as of the whole
    file, without reading it. Raises FailedPrecondition for a file that is missing or no archive."""
    check_archive(path)
    digest = hashlib.blake2b(digest_size=8)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            digest.update(f"{entry.filename.partition('/')[2]} {entry.file_size} {entry.CRC}\n".encode())
    return digest.hexdigest()
