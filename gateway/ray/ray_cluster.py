"""A Ray cluster as its own API shows it: its nodes, and the actors of one namespace."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import ray
from ray import exceptions

from gateway.ray.cluster_state import HEAD_RESOURCE, POLL_SECONDS, ActorStatus, Node
from gateway.ray.service_actor import Report, ServiceActor
from gateway.ray.service_spec import ServiceSpec

NODE_SHARE = 0.001
"""How much of a resource that stands for a node an actor takes."""
REPORT_SECONDS = 20.0
"""How long an actor may take to report; its own check of a server that hangs takes 12 s."""


class RayCluster:
    """The cluster that this process is connected to. The actors are those of the namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def nodes(self) -> list[Node]:
        """Returns the nodes that are alive, the head first."""
        nodes = [
            Node(
                id=node["NodeID"],
                ip=node["NodeManagerAddress"],
                gpus=node["Resources"].get("GPU", 0.0),
                is_head=HEAD_RESOURCE in node["Resources"],
            )
            for node in ray.nodes()
            if node["Alive"]
        ]
        return sorted(nodes, key=lambda node: (not node.is_head, node.ip))

    def free_gpus(self) -> float:
        """Returns how many GPUs no actor and no task has taken."""
        return float(ray.available_resources().get("GPU", 0.0))

    def names(self) -> list[str]:
        """Returns the names of the actors, sorted."""
        return sorted(ray.util.list_named_actors())

    def create(self, spec: ServiceSpec) -> None:
        """Creates the actor, which outlives this process and is restarted for ever. Does nothing if it exists."""
        options: dict[str, Any] = {
            "name": spec.name,
            "namespace": self._namespace,
            "lifetime": "detached",
            "get_if_exists": True,
            "max_restarts": -1,
            "num_cpus": spec.cpus,
            "num_gpus": spec.gpus,
        }
        if spec.node_resource:
            options["resources"] = {spec.node_resource: NODE_SHARE}
        else:
            options["scheduling_strategy"] = "SPREAD"
        ray.remote(ServiceActor).options(**options).remote(spec)

    def statuses(self, names: Sequence[str]) -> list[ActorStatus]:
        """Returns how these actors are, of those that exist."""
        handles = {name: handle for name in names if (handle := self._find(name)) is not None}
        facts = {name: _read_table(handle) for name, handle in handles.items()}
        calls = {name: handles[name].report.remote() for name, fact in facts.items() if fact.get("State") == "ALIVE"}
        ray.wait(list(calls.values()), num_returns=len(calls), timeout=REPORT_SECONDS) if calls else None
        return [_describe(name, facts[name], calls.get(name)) for name in handles]

    def drain(self, names: Sequence[str], seconds: float) -> list[str]:
        """Ends actors for good, at the same time. Returns the names of those that had to be killed after `seconds`."""
        deadline = time.monotonic() + seconds
        handles = {name: handle for name in names if (handle := self._find(name)) is not None}
        running = {name: handle for name, handle in handles.items() if _read_table(handle).get("State") == "ALIVE"}
        calls = {name: handle.drain.remote() for name, handle in running.items()}
        late = []
        for name, handle in handles.items():
            if (call := calls.get(name)) is not None:
                try:
                    ray.get(call, timeout=max(deadline - time.monotonic(), 0.0))
                except exceptions.GetTimeoutError:
                    late.append(name)
                except exceptions.RayError:
                    pass  # It has ended, which is what was asked for.
            ray.kill(handle, no_restart=True)
        while any(name in names for name in self.names()) and time.monotonic() < deadline + REPORT_SECONDS:
            time.sleep(POLL_SECONDS)  # Ray frees the name a moment later.
        return late

    def _find(self, name: str) -> Any:
        try:
            return ray.get_actor(name, namespace=self._namespace)
        except ValueError:
            return None


@contextmanager
def connect(address: str, namespace: str) -> Iterator[RayCluster]:
    """Connects to the cluster at `HOST:PORT`, or to that of RAY_ADDRESS or of this machine for "auto". Meanwhile
    standard output is standard error.

    Raises ConnectionError if there is none, and RuntimeError if it has another version of Ray or Python.
    """
    # What happens elsewhere in the cluster Ray prints from a thread to standard output, whatever it is told.
    with redirect_stdout(sys.stderr):
        ray.init(address=address, namespace=namespace, logging_level=logging.CRITICAL, log_to_driver=False)
        try:
            yield RayCluster(namespace)
        finally:
            ray.shutdown()


def _read_table(handle: Any) -> dict[str, Any]:
    """Returns what Ray knows of an actor. The public API for this needs the dashboard, which a cluster may lack."""
    return ray._private.state.actors(handle._actor_id.hex()) or {}


def _describe(name: str, facts: dict[str, Any], call: Any) -> ActorStatus:
    state, restarts = facts.get("State"), int(facts.get("NumRestarts", 0))
    if state in ("DEPENDENCIES_UNREADY", "PENDING_CREATION"):
        return ActorStatus(name, "waiting", restarts=restarts, problem="for a node, or for its process there")
    node = facts.get("Address", {}).get("IPAddress", "")
    if call is None:
        problem = "its actor has ended" if state == "DEAD" else "Ray is starting it again"
        return ActorStatus(name, "starting", restarts=restarts, problem=problem)
    try:
        report: Report = ray.get(call, timeout=0)
    except exceptions.GetTimeoutError:
        return ActorStatus(name, "starting", "", node, 0, restarts, "its actor does not answer yet")
    except exceptions.RayActorError as error:
        return ActorStatus(name, "starting", "", node, 0, restarts, _first_line(error))
    problem = report.get("problem", "")
    return ActorStatus(
        name,
        "starting" if report.get("is_starting") else "not_serving" if problem else "serving",
        report.get("address", ""),
        node,
        report.get("pid", 0),
        restarts,
        problem,
        report.get("fingerprint", ""),
        report.get("is_final", False),
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
