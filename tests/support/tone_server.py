"""Runs all services with the tone model, which here can do everything, in a thread (`tone_server`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.config import GatewaySettings
from gateway.rpc.server import build
from generation_service.models.base import Capability
from service_runtime.observability.logging import configure_logging
from service_runtime.rpc.server import serve_services
from tests.support.service_stack import ServiceStack
from tests.support.tone_model import ToneModel


@dataclass(frozen=True)
class ToneServer:
    """A gateway and what is behind it."""

    address: str
    model: ToneModel


@contextmanager
def tone_server(folder: Path) -> Iterator[ToneServer]:
    """Serves while the block runs. Besides `tone`, which is the default model, there is `sketch`."""
    ready, stop = Future[ToneServer](), Future[None]()

    async def serve() -> None:
        stack = ServiceStack(folder)
        stack.model.info = replace(stack.model.info, capabilities=frozenset(Capability))
        address = f"unix:{folder}/gateway.sock"
        settings = GatewaySettings(**stack.common_settings())
        try:
            await stack.start("storage", "export", "generation")
            async with serve_services([build(settings)], [address], settings):
                ready.set_result(ToneServer(address, stack.model))
                await asyncio.wrap_future(stop)
        finally:
            await stack.stop_all()

    configure_logging("error", "console")  # Else lines of the log would be among what a command prints.
    with ThreadPoolExecutor(1) as executor:
        served = executor.submit(asyncio.run, serve())
        wait([ready, served], return_when=FIRST_COMPLETED)
        try:
            if not served.done():
                yield ready.result()
        finally:
            stop.set_result(None)
            served.result()
