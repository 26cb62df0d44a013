"""Of several servers, one hangs: those that depend on the service stay healthy, because the others serve."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dgx_music.channel import connect
from dgx_music.errors import Unavailable
from service_runtime.rpc.health.health_check import require_serving
from tests.support.processes import free_ports
from tests.support.storage_servers import storage_server

pytestmark = pytest.mark.slow

CHECKS = 4
"""Two of which would go to the server that hangs."""


async def test_check_passes_while_one_of_two_servers_hangs(tmp_path: Path) -> None:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(2)]
    together = f"ipv4:{','.join(addresses)}"
    async with connect(together) as channel:
        with pytest.raises(Unavailable, match=r"no server at .* answers and is SERVING"):
            await require_serving(channel, together)
        async with storage_server(urls[0], addresses[0]) as hung, storage_server(urls[1], addresses[1]):
            for _ in range(CHECKS):
                await require_serving(channel, together)
            hung.send_signal(signal.SIGSTOP)
            try:
                for _ in range(CHECKS):
                    await require_serving(channel, together)
            finally:
                hung.send_signal(signal.SIGCONT)
