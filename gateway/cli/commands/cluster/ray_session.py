"""The connection of the commands `dgx-music ray …` to a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from gateway.cli.session.command_errors import BAD_INPUT, TRY_AGAIN, CommandError
from service_runtime.optional_deps import install_extra_command

if TYPE_CHECKING:
    from gateway.ray.ray_cluster import RayCluster

THIS_MACHINE = "auto"
"""What Ray calls the cluster of RAY_ADDRESS, or else that of this machine."""


@contextmanager
def connect(address: str | None, namespace: str) -> Iterator[RayCluster]:
    """Connects to the cluster, by default to that of RAY_ADDRESS, or of this machine.

    Raises CommandError if that fails, or without the extra.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise CommandError(f"`dgx-music ray` needs the extra ray; run {install_extra_command('ray')}") from error
    from gateway.ray import ray_cluster

    if (address or os.environ.get("RAY_ADDRESS", "")).startswith("ray://"):
        source = "--address" if address else "RAY_ADDRESS"
        problem = (
            "must be HOST:PORT of the head, not that of Ray Client; run the command on a node, or by `ray job submit`"
        )
        raise CommandError(f"{source}: {problem}", BAD_INPUT)
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(ray_cluster.connect(address or THIS_MACHINE, namespace))
        except ConnectionError as error:
            where = f"at {address}" if address else "on this machine or at RAY_ADDRESS"
            problem = f"no Ray cluster answers {where}; start one with `ray start --head`, or give --address HOST:PORT"
            raise CommandError(problem, TRY_AGAIN) from error
        except (RuntimeError, ValueError) as error:  # Another version of Ray or of Python, or no address.
            raise CommandError(f"--address: {error}", BAD_INPUT) from error
        yield cluster
