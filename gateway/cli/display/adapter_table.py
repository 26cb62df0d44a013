"""The installed LoRA adapters, as the models see them."""

from __future__ import annotations

from collections.abc import Iterable

from dgx_music.generation.v1.generation_pb2 import Model
from gateway.cli.display.console import escape_text

COLUMNS = (("adapter", False), ("models", True), ("", True))


def adapter_rows(models: Iterable[Model]) -> list[tuple[str, str, str]]:
    """The name of each adapter, the models that take it, and if none does why one of them doesn't."""
    fitting: dict[str, list[str]] = {}
    problems: dict[str, str] = {}
    for model in models:
        for adapter in model.adapters:
            names = fitting.setdefault(adapter.name, [])
            if adapter.problem:
                problems.setdefault(adapter.name, adapter.problem)
            else:
                names.append(model.name)
    return [
        (escape_text(name), escape_text(", ".join(names)), "" if names else escape_text(problems[name]))
        for name, names in sorted(fitting.items())
    ]
