"""Reads and awaits the health of a server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.channel import connect
from dgx_music.credentials import NO_CREDENTIALS, Credentials

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


async def wait_until_healthy(address: str, credentials: Credentials = NO_CREDENTIALS, *, seconds: float = 150) -> None:
    """Returns once a server listens at the address and all of its services are SERVING."""
    async with connect(address, credentials) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(), timeout=seconds, wait_for_ready=True):
            if answer.status == SERVING:
                return
    raise AssertionError(f"the server at {address} has ended")
