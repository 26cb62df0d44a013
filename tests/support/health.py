"""Reads and awaits the health of a server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def read_health(channel: grpc.aio.Channel, name: str = "") -> int:
    """Returns the state of a service now, or of the whole server."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    status: int = (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)).status
    return status


async def wait_for_health(channel: grpc.aio.Channel, status: int, name: str = "") -> None:
    """Returns once the service, or the whole server, has this state."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    async with asyncio.timeout(60):
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=name)):
            if answer.status == status:
                return
    raise AssertionError("health ended")
