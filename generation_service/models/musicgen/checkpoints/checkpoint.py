"""The files that audiocraft exports its models to: weights, and with them the configuration as YAML.

Each is a dict written by `torch.save`, with `best_state` (the tensors by name) and `xp.cfg` (an OmegaConf dump with
unresolved `${…}` references). Source: audiocraft 1.3.0, `utils/export.py`, `models/loaders.py`. Reading a file executes
nothing in it.
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
_MAX_REFERENCE_DEPTH = 16
"""A longer chain of references is taken for a cycle."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file holds, except for its tensors, which stay in the file."""

    path: Path
    map_tensors: Callable[[], Mapping[str, Tensor]]
    """Maps the tensors into memory anew. Pages that were read stay resident for as long as any tensor of a mapping is
    referenced, so a model is loaded part by part, each part from its own mapping. Raises FailedPrecondition if the file
    has been replaced in the meantime."""
    config: Mapping[str, Any]
    """`xp.cfg`, with its references resolved."""
    digest: str
    """16 hexadecimal digits that change with the content."""


def invalid_checkpoint(path: Path, problem: str) -> FailedPrecondition:
    """The error for a file that can't be used; `problem` says what is wrong with it."""
    return FailedPrecondition(f"{path}: {problem}", reason="CHECKPOINT_INVALID", metadata={"file": str(path)})


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises FailedPrecondition if the file is missing, truncated, or not an audiocraft checkpoint."""
    package, digest = _map_file(path), file_digest(path)

    def map_tensors() -> Mapping[str, Tensor]:
        tensors: Mapping[str, Tensor] = _map_file(path)["best_state"]
        if file_digest(path) != digest:
            raise invalid_checkpoint(path, "the file was replaced during loading; load the model again")
        return tensors

    return Checkpoint(path, map_tensors, parse_xp_config(str(package["xp.cfg"]), path), digest)


def _map_file(path: Path) -> dict[str, Any]:
    """The saved dict. Its tensors are memory-mapped and read when they are used."""
    check_archive(path)
    try:
        package = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # The unpickler may raise anything for a foreign or damaged file.
        cause = str(error).partition("\n")[0][:200]
        raise invalid_checkpoint(path, f"can't be read as weights ({cause}); expected an audiocraft export") from error
    if not isinstance(package, dict) or "best_state" not in package or "xp.cfg" not in package:
        found = sorted(map(str, package))[:8] if isinstance(package, dict) else type(package).__name__
        raise invalid_checkpoint(path, f"expected best_state and xp.cfg, as audiocraft exports them; found {found}")
    state = package["best_state"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise invalid_checkpoint(path, "best_state is not a mapping of tensors")
    return package


def check_archive(path: Path) -> None:
    """Raises FailedPrecondition if the file is missing, or if it is not a complete archive written by torch.save."""
    if not path.is_file():
        raise FailedPrecondition(
            f"{path}: no such file; expected a folder with audiocraft's {LM_FILE} and {COMPRESSION_FILE}",
            reason="CHECKPOINT_MISSING",
            metadata={"file": str(path)},
        )
    if not zipfile.is_zipfile(path):
        raise invalid_checkpoint(
            path, "the file is truncated or was not written by torch.save; download audiocraft's export again"
        )


def parse_xp_config(text: str, path: Path) -> dict[str, Any]:
    """`xp.cfg` as nested dicts and lists, in which `${a.b}` is replaced by the value at a.b."""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise invalid_checkpoint(path, "xp.cfg is not valid YAML") from error
    if not isinstance(config, dict):
        raise invalid_checkpoint(path, "xp.cfg is not a mapping")
    resolved: dict[str, Any] = _resolve(config, config, path, 0)
    return resolved


def _resolve(node: Any, root: Mapping[str, Any], path: Path, depth: int) -> Any:
    if isinstance(node, dict):
        return {key: _resolve(value, root, path, depth) for key, value in node.items()}
    if isinstance(node, list):
        return [_resolve(value, root, path, depth) for value in node]
    if not isinstance(node, str) or (reference := _REFERENCE.fullmatch(node)) is None:
        return node
    if depth == _MAX_REFERENCE_DEPTH:
        raise invalid_checkpoint(path, f"the reference {node} in xp.cfg refers to itself")
    target: Any = root
    for key in reference[1].split("."):
        if not isinstance(target, Mapping) or key not in target:
            return node  # Used for training only, such as a path on the cluster; required fields are checked later.
        target = target[key]
    return _resolve(target, root, path, depth + 1)


def file_digest(path: Path) -> str:
    """16 hexadecimal digits computed from the archive's directory.

    The directory has a CRC-32 of every tensor, so this is as good as a digest of the whole file and does not read it.
    Raises FailedPrecondition if the file is missing or is not an archive.
    """
    check_archive(path)
    digest = hashlib.blake2b(digest_size=8)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            digest.update(f"{entry.filename.partition('/')[2]} {entry.file_size} {entry.CRC}\n".encode())
    return digest.hexdigest()
