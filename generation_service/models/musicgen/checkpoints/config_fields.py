"""Typed access to the configuration of a checkpoint."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint

_REQUIRED = object()
_MAX_COUNT = 1 << 20
"""No dimension of a real model is larger; a damaged file could otherwise ask for any amount of memory or time."""
_MAX_NUMBER = 1e9
_MAX_FACTORS = 16


class ConfigFields:
    """Reads fields by their dotted path. A field that is missing or has the wrong type is a FailedPrecondition."""

    def __init__(self, config: Mapping[str, Any], path: Path, expected_model: str, prefix: str = "") -> None:
        """Errors name the file `path`, put `prefix` before a field, and say that `expected_model` was expected."""
        self.path = path
        self._config = config
        self._expected_model = expected_model
        self._prefix = prefix

    def value(self, name: str, default: object = _REQUIRED) -> Any:
        node: Any = self._config
        for key in name.split("."):
            if not isinstance(node, Mapping) or key not in node:
                if default is _REQUIRED:
                    problem = f"its configuration has no {self._prefix}{name}; expected {self._expected_model}"
                    raise invalid_checkpoint(self.path, problem)
                return default
            node = node[key]
        return node

    def expect(self, name: str, expected: object, default: object = _REQUIRED) -> None:
        """Accepts only one value of the field."""
        found = self.value(name, default)
        if found != expected:
            raise self._unexpected(name, found, f"only {expected!r} is supported")

    def count(self, name: str, at_most: int = _MAX_COUNT) -> int:
        found = self.value(name)
        if type(found) is not int or found < 1:
            raise self._unexpected(name, found, "expected an integer of at least 1")
        if found > at_most:
            raise self._unexpected(name, found, f"expected at most {at_most:,}")
        return found

    def factors(self, name: str) -> tuple[int, ...]:
        found = self.value(name)
        if not isinstance(found, list) or not found or not all(type(item) is int and item > 1 for item in found):
            raise self._unexpected(name, found, "expected a list of integers of at least 2")
        if len(found) > _MAX_FACTORS or max(found) > _MAX_COUNT:
            raise self._unexpected(name, found[:_MAX_FACTORS], f"expected at most {_MAX_FACTORS}, to {_MAX_COUNT:,}")
        return tuple(found)

    def number(self, name: str, default: object = _REQUIRED) -> float:
        found = self.value(name, default)
        if type(found) not in (int, float) or not 0 < found <= _MAX_NUMBER:
            raise self._unexpected(name, found, "expected a number above 0")
        return float(found)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        found = self.value(name)
        if found not in choices:
            raise self._unexpected(name, found, f"expected {' or '.join(choices)}")
        return str(found)

    def _unexpected(self, name: str, found: object, expectation: str) -> Exception:
        return invalid_checkpoint(self.path, f"{self._prefix}{name} is {reprlib.repr(found)}; {expectation}")
