"""The config file as a source of the settings of a class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, InitSettingsSource

from dgx_music.config_file import ConfigFile, read_config_file
from dgx_music.credentials import SYSTEM_CA


class ConfigFileSource(InitSettingsSource):
    """The settings of a class that the file sets. Other keys belong to other classes. An empty text counts as unset."""

    def __init__(self, settings_class: type[BaseSettings]) -> None:
        file = read_config_file()
        values = {
            name: _with_absolute_paths(file, name, field, file.values[name])
            for name, field in settings_class.model_fields.items()
            if file.values.get(name, "") != ""
        }
        super().__init__(settings_class, values)


def _with_absolute_paths(file: ConfigFile, name: str, field: FieldInfo, value: Any) -> Any:
    """Returns the value with "~" expanded in paths. Raises ConfigFileError for relative ones."""
    if Path not in (field.annotation, *get_args(field.annotation)) and (name != "tls_ca" or value == SYSTEM_CA):
        return value
    if isinstance(value, list):
        return [_with_absolute_paths(file, name, field, one) for one in value]
    if not isinstance(value, str):
        return value
    is_list = tuple in (field.annotation, get_origin(field.annotation))
    paths = value.split(os.pathsep) if is_list else [value]
    return os.pathsep.join(file.expand_path(name, path) for path in paths)
