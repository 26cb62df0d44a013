"""Runs services in this process, on its event loop, behind one Unix socket in the data directory.

Each service is built as it would be in a process of its own. They call each other through the socket.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.config import GatewaySettings
from gateway.embedded.ownership import Owner
from gateway.embedded.service_set import ALL, ServiceName, ServiceSet
from service_runtime.rpc.server import serve_services
from service_runtime.rpc.service import Service


@asynccontextmanager
async def run_embedded_services(
    owner: Owner,
    data_dir: Path,
    *,
    service_set: ServiceSet = ALL,
    public_address: str | None = None,
    model_folder: Path | None = None,
    overrides: Mapping[str, object] | None = None,
) -> AsyncIterator[list[str]]:
    """Runs the services while the block runs, and yields the addresses that they are bound to.

    With `public_address`, the gateway alone is also served there. `model_folder` is a model to offer in addition to
    those in the settings. `overrides` are further settings. Raises ServiceError if a service can't run.
    """
    settings = {
        "data_dir": data_dir,
        **{f"{name}_address": owner.address for name in ("storage", "export", "generation")},
        **(overrides or {}),
    }
    configured = GatewaySettings.model_validate(settings)
    if configured.service_token is None and configured.service_token_file is None:
        settings |= {"service_token": secrets.token_urlsafe()}  # Lets the services tell each other from clients.
    if public_address is None:
        # The fixed ports are for `serve`: a command that runs beside it, or beside another command, must not bind them.
        settings |= {"metrics_port": None, "require_tokens": False}
        if "generation" in service_set:
            from generation_service.config import NO_PRELOAD

            settings |= {"preload": NO_PRELOAD}  # The command may need another model, or none.
    if model_folder is not None:
        from generation_service.config import GenerationSettings

        settings |= {"model_folders": [model_folder, *GenerationSettings().model_folders]}
    services = [build(name, settings) for name in service_set]
    public_addresses = {} if public_address is None else {public_address: services[-1]}
    async with serve_services(
        services, [owner.address], GatewaySettings.model_validate(settings), public_addresses=public_addresses
    ) as bound_addresses:
        try:
            yield bound_addresses
        finally:
            owner.stop_accepting_clients()


def build(name: ServiceName, settings: dict[str, object]) -> Service:
    """Builds the service `name`. A setting that is not in `settings` is read from the environment."""
    # Imported here because each service needs libraries that the others, and a command that is only a client, do not.
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
