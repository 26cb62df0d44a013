"""All settings of all services, which one config file and one environment set."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic.fields import FieldInfo

from export_service.config import ExportSettings
from gateway.config import GatewaySettings
from gateway.http.config import HttpSettings
from gateway.studio.config import StudioSettings
from generation_service.config import GenerationSettings
from service_runtime.settings import Settings
from storage_service.config import StorageSettings

SECTIONS: Mapping[str, type[Settings]] = {
    "All services": Settings,
    "Storage": StorageSettings,
    "Export": ExportSettings,
    "Generation": GenerationSettings,
    "Gateway": GatewaySettings,
    "HTTP endpoints": HttpSettings,
    "Studio": StudioSettings,
}
"""Title → the class of the settings; those of `Settings` are part of every class."""


def own_fields(settings: type[Settings]) -> dict[str, FieldInfo]:
    """Returns the fields that the class adds to those of all services."""
    return {
        name: field
        for name, field in settings.model_fields.items()
        if settings is Settings or name not in Settings.model_fields
    }


CLASSES: Mapping[str, type[Settings]] = {name: owner for owner in SECTIONS.values() for name in own_fields(owner)}
"""Name of a setting → the class that has it."""
