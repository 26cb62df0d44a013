"""`dgx-music config show`: each setting with its value and where it came from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from dgx_music.config_file import ConfigFile, find_variable
from gateway.cli.display.console import Console, escape_text
from gateway.cli.session.command_settings import checked_config_file
from gateway.settings_catalog import SECTIONS, own_fields
from service_runtime.settings import Settings

MASK = "********"
"""Shown instead of a secret."""


@dataclass(frozen=True, slots=True)
class SettingValue:
    """A setting as it is now."""

    name: str
    value: str | int | float | bool | list[str] | None
    """None if it is unset; a secret is masked."""
    source: str
    """option, environment, file or default."""
    where: str
    """The option, the environment variable, or the path and the line; empty for a default."""


def show(console: Console, data_dir: Path | None) -> int:
    """Prints all settings. Raises ConfigFileError and ValidationError."""
    file = checked_config_file()
    values = list(find_values(file, {} if data_dir is None else {"data_dir": data_dir}))
    if console.as_json:
        for value in values:
            console.print_object(asdict(value))
        return 0
    console.print_table(
        (("setting", False), ("value", True), ("from", False)),
        (
            (
                value.name,
                f"[bold]{escape_text(_as_text(value.value))}[/]"
                if value.source != "default"
                else _as_text(value.value),
                "" if value.source == "default" else _origin(value, file),
            )
            for value in values
        ),
    )
    console.print_notice(f"config file: {file.path}" + ("" if file.path.exists() else ", which does not exist"))
    return 0


def find_values(file: ConfigFile, options: dict[str, Any]) -> Iterator[SettingValue]:
    """Yields all settings with the values that a command with these options has."""
    for settings_class in SECTIONS.values():
        settings = settings_class.model_validate(options)
        for name in own_fields(settings_class):
            yield SettingValue(name, _plain(settings, name), *_find_source(name, file, options))


def _find_source(name: str, file: ConfigFile, options: dict[str, Any]) -> tuple[str, str]:
    if name in options:
        return "option", "--" + name.replace("_", "-")
    if variable := find_variable(name):
        return "environment", variable
    if file.values.get(name, "") != "":
        return "file", f"{file.path}:{file.lines.get(name)}"
    return "default", ""


def _plain(settings: Settings, name: str) -> Any:
    value = getattr(settings, name)
    if isinstance(value, SecretStr):
        return MASK
    if name == "database_url" and value is not None:
        from storage_service.database_url import mask_url  # Loads SQLAlchemy, which the other values don't need.

        return mask_url(value)
    if isinstance(value, tuple):
        return [str(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _as_text(value: object) -> str:
    match value:
        case None | "" | []:
            return "unset"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list():
            return os.pathsep.join(value)
    return str(value)


def _origin(value: SettingValue, file: ConfigFile) -> str:
    return f"config file, line {file.lines.get(value.name)}" if value.source == "file" else value.where
