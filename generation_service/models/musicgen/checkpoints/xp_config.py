"""audiocraft's configuration: an OmegaConf dump with unresolved `${…}` references."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_MAX_REFERENCES = 16
"""A longer chain of references is taken for a cycle."""
_MAX_VALUES, _MAX_DEPTH = 100_000, 64
"""Far above those of any model, whose configuration has some hundred values."""


def parse_xp_config(text: str, path: Path) -> dict[str, Any]:
    """`xp.cfg` as nested dicts and lists, in which `${a.b}` is replaced by the value at a.b."""
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # Such as a date that does not exist.
        raise invalid_checkpoint(path, "xp.cfg is not valid YAML") from error
    return resolve_references(config, path)


def resolve_references(config: Any, path: Path) -> dict[str, Any]:
    """Replaces `${a.b}` by the value at a.b."""
    if not isinstance(config, dict):
        raise invalid_checkpoint(path, "xp.cfg is not a mapping")
    resolved: dict[str, Any] = _Resolver(config, path).resolve(config, 0, 0)
    return resolved


class _Resolver:
    def __init__(self, root: Mapping[str, Any], path: Path) -> None:
        self._root = root
        self._path = path
        self._values = 0

    def resolve(self, node: Any, depth: int, references: int) -> Any:
        """`depth` counts the containers around a node, `references` those that led to it."""
        self._values += 1
        if self._values > _MAX_VALUES or depth > _MAX_DEPTH:  # Aliases and references can multiply without end.
            problem = f"xp.cfg has more than {_MAX_VALUES:,} values, or is nested more than {_MAX_DEPTH} deep"
            raise invalid_checkpoint(self._path, problem)
        if isinstance(node, dict):
            return {key: self.resolve(value, depth + 1, references) for key, value in node.items()}
        if isinstance(node, list):
            return [self.resolve(value, depth + 1, references) for value in node]
        if not isinstance(node, str) or (reference := _REFERENCE.fullmatch(node)) is None:
            return node
        if references == _MAX_REFERENCES:
            raise invalid_checkpoint(self._path, f"the reference {node[:100]} in xp.cfg refers to itself")
        target: Any = self._root
        for key in reference[1].split("."):
            if not isinstance(target, Mapping) or key not in target:
                return node  # For training only, such as a path on the cluster; required fields are checked later.
            target = target[key]
        return self.resolve(target, depth + 1, references + 1)
