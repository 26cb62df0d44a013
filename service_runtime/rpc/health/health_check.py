"""Checks the health of another server (grpc.health.v1)."""

from __future__ import annotations

from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.error_status import read_error_details
from dgx_music.errors import Unavailable

HEALTH_CHECK_TIMEOUT_SECONDS = 12.0
"""How long a busy server may take. Shorter than health_monitor.CHECK_TIMEOUT_SECONDS, in which the caller's own check
has to finish. A refused connection fails at once."""


async def require_serving(channel: grpc.aio.Channel, address: str, full_name: str = "") -> None:
    """Raises Unavailable unless the named service is SERVING; without a name, unless all services of the server are."""
    name = full_name or "the server"
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


def _not_serving(problem: str, address: str) -> Unavailable:
    return Unavailable(problem, reason="NOT_SERVING", metadata={"address": address}, retry_after_seconds=1.0)
