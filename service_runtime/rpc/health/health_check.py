"""Checks the health of another server (grpc.health.v1)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.address import names_several
from dgx_music.error_status import read_error_details
from dgx_music.errors import Unavailable

HEALTH_CHECK_TIMEOUT_SECONDS = 12.0
"""How long a busy server may take. Shorter than health_monitor.CHECK_TIMEOUT_SECONDS, in which the caller's own check
has to finish. A refused connection fails at once."""


CONNECTION_POLL_SECONDS = 0.05
"""How often a channel that connects is asked for its state: gRPC's own wait for a change can't be cancelled."""


async def require_serving(channel: grpc.aio.Channel, address: str, full_name: str = "") -> None:
    """Raises Unavailable unless the named service is SERVING; without a name, unless all services of the server are.

    Of several servers, at least one has to be: that is what gRPC's health checks of the channel say. A call might go to
    one that hangs.
    """
    name = full_name or "the server"
    if names_several(address):
        await _require_ready(channel, address, name)
        return
    health: Any = health_pb2_grpc.HealthStub(channel)  # grpc_health has no types.
    try:
        answer = await health.Check(
            health_pb2.HealthCheckRequest(service=full_name), timeout=HEALTH_CHECK_TIMEOUT_SECONDS
        )
    except grpc.aio.AioRpcError as error:
        raise _not_serving(
            f"{name} does not answer at {address}: {read_error_details(error).message}", address
        ) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise _not_serving(f"{name} at {address} is {status}", address)


async def _require_ready(channel: grpc.aio.Channel, address: str, name: str) -> None:
    gives_up_at = time.monotonic() + HEALTH_CHECK_TIMEOUT_SECONDS
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE or time.monotonic() > gives_up_at:
            raise _not_serving(f"{name}: no server at {address} answers and is SERVING", address)
        await asyncio.sleep(CONNECTION_POLL_SECONDS)


def _not_serving(problem: str, address: str) -> Unavailable:
    return Unavailable(problem, reason="NOT_SERVING", metadata={"address": address}, retry_after_seconds=1.0)
