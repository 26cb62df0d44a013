"""Asks a server whether it is SERVING, for container health checks: `python -m service_runtime.rpc.probe HOST:PORT`.

Exits 0 if it is, else 1 with the reason on standard error.
"""

from __future__ import annotations

import asyncio
import sys

from dgx_music.channel import connect
from dgx_music.errors import Unavailable
from service_runtime.rpc.health_check import require_serving


async def probe(address: str) -> str | None:
    """What is wrong with the server at `address`; None if all of its services are SERVING."""
    async with connect(address) as channel:
        try:
            await require_serving(channel, address)
        except Unavailable as error:
            return error.message
    return None


def main() -> None:
    """The command."""
    sys.exit(asyncio.run(probe(sys.argv[1])))


if __name__ == "__main__":
    main()
