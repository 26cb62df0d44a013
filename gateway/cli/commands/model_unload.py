"""Has the server that is up, if one is, let go of a model whose files are to be deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio

from dgx_music.channel import connect
from dgx_music.errors import FailedPrecondition
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from dgx_music.status import read_error_details
from gateway.cli.session.runner import CALL_SECONDS
from gateway.config import GatewaySettings
from gateway.embedded.ownership import Guest, enter

NOT_THERE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
"""How it is told that no server is up, or that it knows no such model."""


def unload(name: str, data_dir: Path | None) -> None:
    """Returns once the model's memory is free there. Raises AioRpcError, of reason MODEL_IN_USE while music is made."""
    with _generation_address(GatewaySettings.model_validate({} if data_dir is None else {"data_dir": data_dir})) as at:
        if at is not None:
            asyncio.run(_unload(name, at))


@contextmanager
def _generation_address(settings: GatewaySettings) -> Iterator[str | None]:
    """Where the generation service is that this machine's models are for: as it is set, else the data directory's."""
    if "generation_address" in settings.model_fields_set:
        yield settings.generation_address
        return
    folder = settings.data_dir.expanduser().absolute()
    if not (folder / "run").is_dir():  # Nothing has ever run there, and a deletion should leave no folder behind.
        yield None
        return
    try:
        place = enter(folder)
    except FailedPrecondition:  # Its services are processes of their own, at the addresses that they have by default.
        yield settings.generation_address
        return
    with place:
        yield place.address if isinstance(place, Guest) else None


async def _unload(name: str, address: str) -> None:
    async with connect(address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        try:
            await stub.UnloadModel(generation_pb2.UnloadModelRequest(name=name), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() not in NOT_THERE and read_error_details(error).reason != "MODEL_NOT_INSTALLED":
                raise
