"""audiocraft's configuration: an OmegaConf dump with unresolved `${…}` references."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_MAX_REFERENCE_DEPTH = 16
"""A longer chain of references is taken for a cycle."""


def parse_xp_config(text: str, path: Path) -> dict[str, Any]:
    """`xp.cfg` as nested dicts and lists, in which `${a.b}` is replaced by the value at a.b."""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise invalid_checkpoint(path, "xp.cfg is not valid YAML") from error
    return resolve_references(config, path)


def resolve_references(config: Any, path: Path) -> dict[str, Any]:
    """Replaces `${a.b}` by the value at a.b."""
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
