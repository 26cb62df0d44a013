"""The settings of a command, after a check of the config file for all of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeVar

from dgx_music.config_file import ConfigFile, find_variable, read_config_file
from gateway.settings_catalog import CLASSES
from service_runtime.printable_text import make_printable
from service_runtime.settings import Settings

S = TypeVar("S", bound=Settings)


def load_settings(settings_class: type[S], data_dir: Path | None) -> S:
    """Returns the settings; `data_dir`, from the option, takes precedence.

    Prints a warning if the config file contains a secret that other users can read. Raises ConfigFileError if it has a
    key that no service knows.
    """
    file = checked_config_file()
    if warning := describe_exposure(file):
        print(make_printable(f"warning: {warning}"), file=sys.stderr)
    return settings_class.model_validate({} if data_dir is None else {"data_dir": data_dir})


def checked_config_file() -> ConfigFile:
    """Reads the config file. Raises ConfigFileError also for an unknown key, which a service alone has to ignore."""
    file = read_config_file()
    file.require_known(CLASSES)
    return file


def describe_exposure(file: ConfigFile) -> str:
    """Returns what is wrong, and what to do, if other users can read a secret in the file; else an empty text."""
    secret = file.exposed_secret()
    return f"{file.path} contains {secret} and other users can read it; run: chmod 600 {file.path}" if secret else ""


def how_to_unset(name: str) -> str:
    """Returns what to do so that the setting has its default again."""
    variable = find_variable(name)
    return f"unset {variable}" if variable else f"run: dgx-music config unset {name}"
