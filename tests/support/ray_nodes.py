"""A real Ray cluster of two nodes on this machine, which listen on 127.0.0.1 and 127.0.0.2.

`python -m tests.support.ray_nodes` runs it until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.command_line import environment
from tests.support.processes import process

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
OBJECT_STORE_BYTES = 80 << 20
"""A little more than the least that Ray takes."""
LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""The first has Ray take loopback for this machine's address, as it does on a laptop."""


@dataclass(frozen=True)
class RayNodes:
    """The cluster: the head, and another node."""

    variables: dict[str, str]
    """What a command needs to find it."""
    raylets: list[int]
    """The process of each node without which it is dead."""
    logs: Path
    """The folder of all logs."""

    def kill_second(self) -> None:
        """Kills the second node, as a machine does that loses its power."""
        os.kill(self.raylets[1], signal.SIGKILL)


@asynccontextmanager
async def ray_nodes() -> AsyncIterator[RayNodes]:
    """Runs the cluster while the block runs. Each node has two CPUs and, as far as Ray knows, a GPU."""
    folder = Path(tempfile.mkdtemp(prefix="dgx-ray-"))  # The path of a Unix socket has to be short.
    variables = {**LOCAL, "RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "tests.support.ray_nodes")
    env = environment(**variables)
    try:
        async with process(*command, env=env, cwd=ROOT, stdin=PIPE, stdout=PIPE) as cluster:
            assert cluster.stdout is not None
            assert cluster.stdin is not None
            line = await asyncio.wait_for(cluster.stdout.readline(), START_SECONDS)
            started = json.loads(line)
            family = psutil.Process(cluster.pid).children(recursive=True)
            try:
                yield RayNodes({**variables, "RAY_ADDRESS": started["address"]}, started["raylets"], folder / "ray")
            finally:
                cluster.stdin.close()
                await asyncio.wait_for(cluster.wait(), START_SECONDS)
                for left in family:
                    if left.is_running():
                        left.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Runs the cluster."""
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": OBJECT_STORE_BYTES, "include_log_monitor": False}
    cluster = Cluster()
    nodes = [
        cluster.add_node(node_ip_address="127.0.0.1", include_dashboard=False, **options),
        cluster.add_node(node_ip_address="127.0.0.2", **options),
    ]
    raylets = [node.all_processes["raylet"][0].process for node in nodes]
    for raylet in raylets:  # Workers take one that has ended, and that nobody has waited for, for alive.
        threading.Thread(target=raylet.wait, daemon=True).start()
    print(json.dumps({"address": cluster.address, "raylets": [raylet.pid for raylet in raylets]}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
