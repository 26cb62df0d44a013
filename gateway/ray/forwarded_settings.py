"""The settings that servers on other machines get: those of the command that places them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dgx_music.config_file import CONFIG_VARIABLE, PREFIX
from gateway.embedded.service_set import ALL, ServiceName
from gateway.settings_catalog import CLASSES, SECTIONS

OF_LIBRARIES: Mapping[str, tuple[ServiceName, ...]] = {"AWS_": ("export",), "HF_": ("generation",), "OTEL_": ALL}
"""How the environment variables begin that libraries read by themselves, and the services that need them."""
ADDRESSES: Mapping[ServiceName, tuple[ServiceName, ...]] = {
    "storage": ("storage",),
    "export": ("export",),
    "generation": ("storage", "export"),
    "gateway": ALL,
}
"""Service → the services whose addresses it needs."""
NOT_FORWARDED = (
    "DGX_MUSIC_TOKEN",
    "DGX_MUSIC_TOKEN_FILE",
    "DGX_MUSIC_LISTEN",
    "DGX_MUSIC_HEALTH_LISTEN",
    CONFIG_VARIABLE,
)
"""What is the client's own, what each server needs a value of its own of, and the name of a file of this machine."""


def merge_settings(variables: Mapping[str, str], file_values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the environment variables to forward, of this environment and of the values of the config file."""
    of_file = {PREFIX + name.upper(): _as_text(value) for name, value in file_values.items()}
    of_environment = {name: value for name, value in variables.items() if name.startswith((PREFIX, *OF_LIBRARIES))}
    merged = {**of_file, **{name: value for name, value in of_environment.items() if value}}
    return {name: value for name, value in merged.items() if value and name not in NOT_FORWARDED}


def select_settings(settings: Mapping[str, str], service: ServiceName) -> dict[str, str]:
    """Returns those that the service reads: the database's password, say, is for storage alone."""
    return {name: value for name, value in settings.items() if _is_for(name, service)}


def _is_for(variable: str, service: ServiceName) -> bool:
    for prefix, services in OF_LIBRARIES.items():
        if variable.startswith(prefix):
            return service in services
    name = variable.removeprefix(PREFIX).lower()
    if name in (f"{one}_address" for one in ALL):
        return name in (f"{one}_address" for one in ADDRESSES[service])
    return name not in CLASSES or name in SECTIONS[service.capitalize()].model_fields


def _as_text(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return os.pathsep.join(_as_text(one) for one in value)
    text = str(value)
    return os.path.expanduser(text) if text.startswith("~/") else text
