"""The actor: starts a server as a child process, reports on it, and ends with it, so that Ray starts it again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import TypedDict

import ray

from dgx_music.errors import ServiceError
from gateway.ray.child_process import BAD_SETTING, ChildProcess
from gateway.ray.port_reservation import PortReservation
from gateway.ray.service_spec import NODE, ServiceSpec
from service_runtime.rpc.probe import probe, probe_credentials
from service_runtime.settings import Settings

RESTART_SECONDS = 2.0
"""How long a server that fails at once is left alone before it is started again."""
DRAIN_MARGIN_SECONDS = 20.0
"""What a server may take to end beyond the grace of its calls."""


class Report(TypedDict, total=False):
    """What an actor says of its server. An actor of another version may leave fields out."""

    fingerprint: str
    address: str
    pid: int
    problem: str
    """Empty if the server is SERVING."""
    is_starting: bool
    """Whether the server accepts no calls yet."""
    is_final: bool
    """Whether it stays as it is: another start would fail alike."""


class ServiceActor:
    """Runs one server. The environment of its process is the server's too. Its methods run in the main thread, as no
    other may handle signals."""

    def __init__(self, spec: ServiceSpec) -> None:
        self._fingerprint = spec.fingerprint()
        self._exit_status: int | None = None
        self._reservations: list[PortReservation] = []
        node = ray.util.get_node_ip_address()
        host = f"[{node}]" if ":" in node else node
        os.environ.update({name: value.replace(NODE, host) for name, value in spec.environment.items()})
        if spec.first_port:
            os.environ["DGX_MUSIC_LISTEN"] = f"{host}:{self._reserve(node, spec.first_port)}"
        settings = Settings.model_construct()
        with suppress(ValueError):  # Of which the server itself tells.
            settings = Settings()
        if settings.metrics_port:
            os.environ["DGX_MUSIC_METRICS_PORT"] = str(self._reserve(settings.metrics_host, settings.metrics_port))
        self._grace_seconds = settings.grace_seconds
        self._address = settings.listen or str(getattr(settings, f"{spec.service}_address"))
        self._child = ChildProcess(spec.module, ("serve", spec.service), self._on_exit)
        self._end_actor = signal.signal(signal.SIGTERM, self._on_sigterm)

    def report(self) -> Report:
        """Returns how the server is now."""
        return Report(
            fingerprint=self._fingerprint,
            address=self._address,
            pid=self._child.pid,
            problem=self._find_problem(),
            is_starting=not self._child.has_served and self._exit_status is None,
            is_final=self._exit_status == BAD_SETTING,
        )

    def drain(self) -> None:
        """Ends the server as SIGTERM does, and then the actor, for good."""
        self._stop()
        ray.actor.exit_actor()

    def _find_problem(self) -> str:
        error = self._child.last_error
        if self._exit_status is not None:
            return error or f"it ended with status {self._exit_status}"
        if not self._child.has_served:
            return error or "it is starting"
        try:
            problem = asyncio.run(probe(self._address, probe_credentials(Settings())))
        except (ServiceError, ValueError) as refused:
            return error or str(refused)
        return "" if problem is None else error or problem

    def _on_exit(self, status: int, seconds: float) -> None:
        self._exit_status = status
        if status != BAD_SETTING:
            time.sleep(max(RESTART_SECONDS - seconds, 0.0))
            os._exit(1)  # What Ray takes for a crash.

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        # By `ray stop`, say. Ray's own hook, `__ray_shutdown__`, comes too late: it kills child processes before.
        self._stop()
        if callable(self._end_actor):
            self._end_actor(number, frame)

    def _stop(self) -> None:
        self._child.stop(self._grace_seconds + DRAIN_MARGIN_SECONDS)

    def _reserve(self, host: str, first: int) -> int:
        self._reservations.append(PortReservation(host, first))
        return self._reservations[-1].port
