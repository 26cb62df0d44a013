"""Writes docs/configuration.md from the settings classes: `make docs`. A test compares the two."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path

from pydantic.fields import FieldInfo

from export_service.config import ExportSettings
from gateway.config import GatewaySettings
from gateway.http.config import HttpSettings
from generation_service.config import GenerationSettings
from service_runtime.settings import Settings
from storage_service.config import StorageSettings

FILE = Path(__file__).with_suffix(".md")

SECTIONS: dict[str, type[Settings]] = {
    "All services": Settings,
    "Storage": StorageSettings,
    "Export": ExportSettings,
    "Generation": GenerationSettings,
    "Gateway": GatewaySettings,
    "HTTP endpoints": HttpSettings,
}

INTRODUCTION = """\
# Configuration

Every setting is an environment variable; an empty value counts as unset. Services and `dgx-music` read the same ones.
Written by `make docs` from the settings classes; do not edit.
"""

DYNAMIC_DEFAULTS = {"data_dir": "the platform's folder for user data, e.g. `~/.local/share/dgx-music`"}
"""Defaults that depend on the machine this is written on."""


def render() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for title, settings in SECTIONS.items():
        rows = [
            f"| `DGX_MUSIC_{name.upper()}` | {describe_default(name, field)} | {documentation(settings, name)} |"
            for name, field in settings.model_fields.items()
            if settings is Settings or name not in Settings.model_fields
        ]
        if rows:
            table = [f"## {title}\n", "| Variable | Default | Meaning |", "| --- | --- | --- |", *rows]
            parts.append("\n".join(table) + "\n")
    return "\n".join(parts)


def describe_default(name: str, field: FieldInfo) -> str:
    """The default as one would type it."""
    if name in DYNAMIC_DEFAULTS:
        return DYNAMIC_DEFAULTS[name]
    if field.default in (None, ()):
        return "unset"
    value = str(field.default).lower() if isinstance(field.default, bool) else f"{field.default}"
    return f"`{value.removesuffix('.0')}`"


def documentation(settings: type[Settings], name: str) -> str:
    """The docstring that stands below the field, on one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(settings))).body[0]
    assert isinstance(tree, ast.ClassDef)
    for field, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id == name:
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                return " ".join(str(below.value.value).split()).replace("|", "\\|")
            raise ValueError(f"{settings.__name__}.{name} has no docstring")
    raise ValueError(f"{settings.__name__} has no field {name}")


if __name__ == "__main__":
    FILE.write_text(render())
