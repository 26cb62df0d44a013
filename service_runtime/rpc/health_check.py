"""Asking another server whether it is well (grpc.health.v1)."""

from __future__ import annotations

from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.errors import Unavailable

CHECK_SECONDS = 1.5
"""How long a server may take to answer: less than the time that whoever asks has for its own check."""


async def require_serving(channel: grpc.aio.Channel, address: str, full_name: str = "") -> None:
    """Raises Unavailable unless the service of that name is SERVING at the other end; unnamed, all there have to be."""
    name = full_name or "the server"
    health: Any = health_pb2_grpc.HealthStub(channel)  # It comes without types.
    try:
        answer = await health.Check(health_pb2.HealthCheckRequest(service=full_name), timeout=CHECK_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise _unavailable(f"{name} does not answer at {address}: {error.details()}", address) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise _unavailable(f"{name} at {address} is {status}", address)


def _unavailable(problem: str, address: str) -> Unavailable:
    return Unavailable(problem, reason="NOT_SERVING", metadata={"address": address}, retry_after_seconds=1.0)
