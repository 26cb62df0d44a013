"""The embedded house: the services in this one process, on its event loop, behind one Unix socket in the data
directory. Each is built as it would be anywhere else; they call each other through the socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.config import GatewaySettings
from gateway.embedded.ownership import Owner
from gateway.embedded.service_set import ALL, Needs, ServiceName
from service_runtime.rpc.server import serve_services
from service_runtime.rpc.service import Service


@asynccontextmanager
async def house(
    owner: Owner, data_dir: Path, *, names: Needs = ALL, face: str | None = None, model_folder: Path | None = None
) -> AsyncIterator[list[str]]:
    """Runs the services while the block runs; with `face`, the gateway alone at that address too.

    `model_folder` is one more model, besides those that the settings have. Gives the addresses bound. Raises
    ServiceError where a service can't run.
    """
    settings = {
        "data_dir": data_dir,
        **{f"{name}_address": owner.address for name in ("storage", "export", "generation")},
    }
    if face is None:
        # The services' own ports are for `serve`: a command beside it, or a second one, must not ask for them.
        settings |= {"metrics_port": None}
    if model_folder is not None:
        from generation_service.config import GenerationSettings

        settings |= {"model_folders": [model_folder, *GenerationSettings().model_folders]}
    services = [build(name, settings) for name in names]
    public_addresses = {} if face is None else {face: services[-1]}
    async with serve_services(
        services, [owner.address], GatewaySettings.model_validate(settings), public_addresses=public_addresses
    ) as bound:
        try:
            yield bound
        finally:
            owner.close_door()


def build(name: ServiceName, settings: dict[str, object]) -> Service:
    """The service of this name; what `settings` does not say comes from the environment."""
    # Imported here: each brings libraries along that the others, and a mere client, do without.
    match name:
        case "storage":
            from storage_service.config import StorageSettings
            from storage_service.rpc.server import build as build_storage

            return build_storage(StorageSettings.model_validate(settings))
        case "export":
            from export_service.config import ExportSettings
            from export_service.rpc.server import build as build_export

            return build_export(ExportSettings.model_validate(settings))
        case "generation":
            from generation_service.config import GenerationSettings
            from generation_service.rpc.server import build as build_generation

            return build_generation(GenerationSettings.model_validate(settings))
        case "gateway":
            from gateway.rpc.server import build as build_gateway

            return build_gateway(GatewaySettings.model_validate(settings))
