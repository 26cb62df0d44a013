"""Asks a running server to unload a model before the model's files are deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio

from dgx_music.channel import connect
from dgx_music.credentials import Credentials
from dgx_music.error_status import read_error_details
from dgx_music.errors import FailedPrecondition
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from gateway.cli.session.command_settings import load_settings
from gateway.config import GatewaySettings
from gateway.embedded.ownership import Client, acquire_or_join
from gateway.timeouts import CALL_TIMEOUT_SECONDS

NOT_LOADED_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
"""No server is running, or it does not know the model."""


def unload(name: str, data_dir: Path | None) -> None:
    """Returns once the server has freed the model's memory. Raises AioRpcError with reason MODEL_IN_USE while it is in
    use."""
    settings = load_settings(GatewaySettings, data_dir)
    with _generation_address(settings) as at:
        if at is not None:
            asyncio.run(_unload(name, at, settings.credentials()))


@contextmanager
def _generation_address(settings: GatewaySettings) -> Iterator[str | None]:
    """Yields the address of the generation service: the configured one, else that of the process which owns the data
    directory, or None if there is none."""
    if "generation_address" in settings.model_fields_set:
        yield settings.generation_address
        return
    folder = settings.data_dir.expanduser().absolute()
    if not (folder / "run").is_dir():  # No server has ever run there; do not create the folder.
        yield None
        return
    try:
        place = acquire_or_join(folder)
    except FailedPrecondition:  # Export is served alone, so the services run separately at their default addresses.
        yield settings.generation_address
        return
    with place:
        yield place.address if isinstance(place, Client) else None


async def _unload(name: str, address: str, credentials: Credentials) -> None:
    async with connect(address, credentials) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        try:
            await stub.UnloadModel(generation_pb2.UnloadModelRequest(name=name), timeout=CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() not in NOT_LOADED_CODES and read_error_details(error).reason != "MODEL_NOT_INSTALLED":
                raise
