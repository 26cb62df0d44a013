"""Brings the actors of a cluster into line with what is wanted, and takes them away again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gateway.embedded.service_set import ServiceName
from gateway.ray.cluster_state import POLL_SECONDS, ActorStatus
from gateway.ray.placement import EXPORT_PREFIX, HEAD_SERVICES, ORDER
from gateway.ray.service_spec import ServiceSpec

if TYPE_CHECKING:
    from gateway.ray.ray_cluster import RayCluster

Notify = Callable[[str], None]


class Deployment:
    """The servers on a cluster. What it does is told to `notify`, a line at a time."""

    def __init__(self, cluster: RayCluster, notify: Notify, drain_seconds: float) -> None:
        self._cluster = cluster
        self._notify = notify
        self._drain_seconds = drain_seconds
        """How long a server has to end by itself."""

    def apply(self, specs: Sequence[ServiceSpec], deadline: float) -> list[ActorStatus]:
        """Ends the actors that are not wanted, creates those that are missing, and replaces those with other settings,
        those that serve one after the other, so that the others go on. Returns how they are, at the latest at
        `deadline` (by `time.monotonic`).
        """
        wanted = [spec.name for spec in specs]
        running = {status.name: status for status in self._cluster.statuses(self._cluster.names())}
        self._drain([name for name in running if name not in wanted])
        to_replace = []
        for spec in specs:
            status = running.get(spec.name)
            if status is None:
                self._notify(f"{spec.name}: created")
                self._cluster.create(spec)
            elif status.fingerprint != spec.fingerprint():
                if status.state == "serving":
                    to_replace.append(spec)
                else:
                    self._replace(spec, status)
        for spec in to_replace:
            self._replace(spec, running[spec.name])
            if any(status.state != "serving" for status in self.wait([spec.name], deadline)):
                break  # The others go on with the settings that they have.
        return self.wait(wanted, deadline)

    def wait(self, names: Sequence[str], deadline: float) -> list[ActorStatus]:
        """Returns how the actors are once all are SERVING, one has failed for good, or the time is over."""
        told: dict[str, tuple[str, str]] = {}
        while True:
            statuses = self._cluster.statuses(names)
            for status in statuses:
                news = (status.state, status.problem)
                if told.get(status.name) != news:
                    told[status.name] = news
                    self._notify(describe(status))
            is_over = all(status.state == "serving" for status in statuses) and len(statuses) == len(names)
            if is_over or any(status.is_final for status in statuses) or time.monotonic() >= deadline:
                return statuses
            time.sleep(POLL_SECONDS)  # Ray tells nobody when an actor has started, or a server is ready.

    def remove_all(self) -> None:
        """Ends all actors: those that hand work back first, and those that they need for it last."""
        names = self._cluster.names()
        for service in reversed(ORDER):
            self._drain([name for name in names if service_of(name) == service])

    def _replace(self, spec: ServiceSpec, status: ActorStatus) -> None:
        self._drain([spec.name])
        why = ", as its settings have changed" if status.fingerprint else ""
        self._notify(f"{spec.name}: created anew{why}")
        self._cluster.create(spec)

    def _drain(self, names: Sequence[str]) -> None:
        if not names:
            return
        self._notify(f"{', '.join(names)}: draining")
        for name in self._cluster.drain(names, self._drain_seconds):
            self._notify(f"{name}: killed, as it had not ended after {self._drain_seconds:g} s")


def service_of(name: str) -> str:
    """Returns the service of an actor of this name."""
    return name.partition("-")[0]


def kept_services(names: Sequence[str]) -> tuple[list[ServiceName], bool]:
    """Returns what the head node runs of `HEAD_SERVICES`, and whether there are export servers on each node."""
    return [service for service in HEAD_SERVICES if service in names], any(
        name.startswith(EXPORT_PREFIX) for name in names
    )


def describe(status: ActorStatus) -> str:
    """Returns for example "generation-0: serving at 10.0.0.2:50061"."""
    if status.state == "serving":
        return f"{status.name}: serving at {status.address}"
    return f"{status.name}: {status.state.replace('_', ' ')}: {status.problem}"
