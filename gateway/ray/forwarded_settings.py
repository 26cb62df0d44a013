"""The settings that servers on other machines get: those of the command that places them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dgx_music.config_file import CONFIG_VARIABLE, PREFIX

FORWARDED = (PREFIX, "AWS_", "HF_", "OTEL_")
"""How the environment variables begin that are forwarded: settings, and what libraries read by themselves."""
NOT_FORWARDED = ("DGX_MUSIC_TOKEN", "DGX_MUSIC_TOKEN_FILE", "DGX_MUSIC_LISTEN", CONFIG_VARIABLE)
"""What is the client's own, what each server needs a value of its own of, and the name of a file of this machine."""


def server_environment(variables: Mapping[str, str], file_values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the environment variables of servers, of this environment and the values of the config file."""
    of_file = {PREFIX + name.upper(): _as_text(value) for name, value in file_values.items()}
    of_environment = {name: value for name, value in variables.items() if name.startswith(FORWARDED) and value}
    merged = {**of_file, **of_environment}
    return {name: value for name, value in merged.items() if value and name not in NOT_FORWARDED}


def _as_text(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return os.pathsep.join(_as_text(one) for one in value)
    text = str(value)
    return os.path.expanduser(text) if text.startswith("~/") else text
