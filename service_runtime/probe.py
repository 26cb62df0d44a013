"""Asks a server whether it is SERVING: `python -m service_runtime.probe 127.0.0.1:50050`, for container health checks.

Exits 0 if it is, else 1 with the reason on standard error.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service_runtime.channel import connect

TIMEOUT_SECONDS = 3.0


async def probe(address: str) -> str | None:
    """What is wrong with the server at `address`; None if all of its services are SERVING."""
    async with connect(address) as channel:
        try:
            health: Any = health_pb2_grpc.HealthStub(channel)  # It comes without types.
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            return f"{address} does not answer: {error.details()}"
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        return f"{address} is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}"
    return None


def main() -> None:
    """The command."""
    sys.exit(asyncio.run(probe(sys.argv[1])))


if __name__ == "__main__":
    main()
