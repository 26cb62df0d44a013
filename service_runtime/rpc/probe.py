"""Health probe for containers: `python -m service_runtime.rpc.probe HOST:PORT`.

Exits with 0 if all services of the server are SERVING, else with 1 and the reason on standard error.
"""

from __future__ import annotations

import asyncio
import sys

import grpc.aio

from dgx_music.channel import connect
from dgx_music.errors import Unavailable
from service_runtime.rpc.connection_diagnosis import explain_unreachable
from service_runtime.rpc.health.health_check import require_serving


async def probe(address: str) -> str | None:
    """Returns what is wrong with the server at `address`, or None if all of its services are SERVING."""
    try:
        async with connect(address) as channel:
            await require_serving(channel, address)
    except (Unavailable, ValueError) as error:
        if isinstance(error, Unavailable) and not isinstance(error.__cause__, grpc.aio.AioRpcError):
            return error.message
        return await explain_unreachable(address)
    return None


def main() -> None:
    """Runs the command."""
    sys.exit(asyncio.run(probe(sys.argv[1])))


if __name__ == "__main__":
    main()
