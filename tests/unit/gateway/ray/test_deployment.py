"""In which order actors are created, replaced and ended, on a cluster that does at once what it is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from gateway.ray.cluster_state import ActorStatus
from gateway.ray.deployment import Deployment, kept_services
from gateway.ray.service_spec import ServiceSpec

if TYPE_CHECKING:
    from gateway.ray.ray_cluster import RayCluster

SPECS = [
    ServiceSpec("storage", "storage", {}),
    ServiceSpec("generation-0", "generation", {}),
    ServiceSpec("generation-1", "generation", {}),
]


class InstantCluster:
    """Actors that are SERVING once they are created, except those of `broken`."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.broken: Sequence[str] = ()
        self._running: dict[str, ActorStatus] = {}

    def names(self) -> list[str]:
        return sorted(self._running)

    def statuses(self, names: Sequence[str]) -> list[ActorStatus]:
        return [self._running[name] for name in names if name in self._running]

    def create(self, spec: ServiceSpec) -> None:
        self.done.append(f"create {spec.name}")
        is_broken = spec.name in self.broken
        state, problem = ("not_serving", "a setting is not valid") if is_broken else ("serving", "")
        status = ActorStatus(spec.name, state, problem=problem, fingerprint=spec.fingerprint(), is_final=is_broken)
        self._running[spec.name] = status

    def drain(self, names: Sequence[str], seconds: float) -> list[str]:
        self.done += [f"drain {name}" for name in names]
        for name in names:
            del self._running[name]
        return []


def deploy(cluster: InstantCluster, specs: Sequence[ServiceSpec]) -> tuple[list[str], list[ActorStatus]]:
    """Returns what was done, and how the actors are then."""
    cluster.done = []
    deployment = Deployment(cast("RayCluster", cluster), lambda line: None, drain_seconds=1.0)
    statuses = deployment.apply(specs, deadline=math.inf)
    return cluster.done, statuses


def test_second_time_does_nothing() -> None:
    cluster = InstantCluster()
    done, statuses = deploy(cluster, SPECS)
    assert done == ["create storage", "create generation-0", "create generation-1"]
    assert {status.state for status in statuses} == {"serving"}
    assert deploy(cluster, SPECS)[0] == []


def test_workers_are_added_and_drained() -> None:
    cluster = InstantCluster()
    deploy(cluster, SPECS[:2])
    assert deploy(cluster, SPECS)[0] == ["create generation-1"]
    assert deploy(cluster, SPECS[:1])[0] == ["drain generation-0", "drain generation-1"]


def test_changed_ones_are_replaced_one_after_the_other() -> None:
    cluster = InstantCluster()
    deploy(cluster, SPECS)
    changed = [SPECS[0], *(replace(spec, environment={"DGX_MUSIC_LEASE_SECONDS": "5"}) for spec in SPECS[1:])]
    assert deploy(cluster, changed)[0] == [
        "drain generation-0",
        "create generation-0",
        "drain generation-1",
        "create generation-1",
    ]


def test_a_replacement_that_does_not_serve_is_the_last() -> None:
    cluster = InstantCluster()
    deploy(cluster, SPECS)
    cluster.broken = ["generation-0"]
    changed = [replace(spec, environment={"DGX_MUSIC_LEASE_SECONDS": "x"}) for spec in SPECS]
    done, statuses = deploy(cluster, changed)
    assert done == ["drain storage", "create storage", "drain generation-0", "create generation-0"]
    assert [status.name for status in statuses if status.state == "serving"] == ["storage", "generation-1"]


def test_all_are_ended_from_the_top_to_the_bottom() -> None:
    cluster = InstantCluster()
    deploy(cluster, [*SPECS, ServiceSpec("gateway", "gateway", {}), ServiceSpec("export-10.0.0.1", "export", {})])
    cluster.done = []
    Deployment(cast("RayCluster", cluster), lambda line: None, drain_seconds=1.0).remove_all()
    assert cluster.done == [
        "drain gateway",
        "drain generation-0",
        "drain generation-1",
        "drain export-10.0.0.1",
        "drain storage",
    ]


def test_what_runs_beside_the_workers_is_kept() -> None:
    assert kept_services(["export-10.0.0.1", "gateway", "generation-0"]) == (["gateway"], True)
    assert kept_services(["generation-0"]) == ([], False)
