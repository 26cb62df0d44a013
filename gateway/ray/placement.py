"""Decides which servers run where on a Ray cluster, and with which settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from dgx_music.address import DEFAULT_PORT
from dgx_music.errors import FailedPrecondition
from gateway.embedded.service_set import ServiceName
from gateway.ray.cluster_state import HEAD_RESOURCE, Node
from gateway.ray.forwarded_settings import select_settings
from gateway.ray.service_spec import NODE, ServiceSpec

STORAGE_PORT, EXPORT_PORT, FIRST_WORKER_PORT = 50052, 50053, 50061
"""Where servers listen, unless the settings say otherwise; further workers of a node on the ports that follow."""
MAX_CPU_WORKERS = 4
"""How many workers of a node without GPUs the gateway looks for."""
MAX_WORKER_ADDRESSES = 64
"""How many workers the gateway knows: it asks any of them for models, and gives them no work."""
WORKER_PREFIX, EXPORT_PREFIX = "generation-", "export-"
"""How the names of workers, and of export servers of one node each, begin."""
HEAD_SERVICES: Sequence[ServiceName] = ("storage", "export", "gateway")
"""What can run on the head node."""
ORDER: Sequence[ServiceName] = ("storage", "export", "generation", "gateway")
"""In which services are started and replaced; they are ended the other way round."""


@dataclass(frozen=True, slots=True)
class PlacementOptions:
    """What is wanted."""

    workers: int | None = None
    """None: one for each GPU, or with `gpus_per_worker` 0 one for each node."""
    gpus_per_worker: float = 1.0
    cpus_per_worker: float = 1.0
    head_services: Collection[ServiceName] = ()
    export_per_node: bool = False
    first_port: int = FIRST_WORKER_PORT
    module: str = "gateway"


def plan(nodes: Sequence[Node], options: PlacementOptions, settings: Mapping[str, str]) -> list[ServiceSpec]:
    """Returns what to run: a service after those that it calls.

    `settings` are environment variables; they take precedence over what is derived from the nodes. Raises
    FailedPrecondition if the cluster or the settings don't allow it.
    """
    head = next((node for node in nodes if node.is_head), nodes[0])
    addresses = {
        "DGX_MUSIC_STORAGE_ADDRESS": f"{_host(head)}:{STORAGE_PORT}",
        "DGX_MUSIC_EXPORT_ADDRESS": f"{_host(head)}:{EXPORT_PORT}",
        "DGX_MUSIC_GENERATION_ADDRESS": _list_of(_worker_addresses(nodes, options)),
        "DGX_MUSIC_GATEWAY_ADDRESS": f"{_host(head)}:{DEFAULT_PORT}",
    }
    if options.export_per_node:
        _check_export_per_node(nodes, options, settings)
        addresses["DGX_MUSIC_EXPORT_ADDRESS"] = f"{NODE}:{EXPORT_PORT}"
    common = {**addresses, **settings}
    on_head = {
        service: ServiceSpec(service, service, common, node_resource=HEAD_RESOURCE, module=options.module)
        for service in HEAD_SERVICES
        if service in options.head_services
    }
    exports = [_export_on(node, common, options.module) for node in nodes] if options.export_per_node else []
    if exports and (gateway := on_head.get("gateway")) is not None:
        all_exports = {
            "DGX_MUSIC_EXPORT_ADDRESS": _list_of([f"{_host(node)}:{EXPORT_PORT}" for node in nodes]),
            **settings,
        }
        on_head["gateway"] = replace(gateway, environment={**common, **all_exports})
    workers = [_worker(number, common, options) for number in range(count_workers(nodes, options))]
    specs = [*on_head.values(), *exports, *workers]
    return [
        replace(spec, environment=select_settings(spec.environment, spec.service))
        for spec in sorted(specs, key=lambda spec: ORDER.index(spec.service))
    ]


def count_workers(nodes: Sequence[Node], options: PlacementOptions) -> int:
    """Returns how many workers there should be. Raises FailedPrecondition if that can't be told."""
    if options.workers is not None:
        return options.workers
    if options.gpus_per_worker == 0:
        return len(nodes)
    if count := sum(int(node.gpus // options.gpus_per_worker) for node in nodes):
        return count
    raise FailedPrecondition(
        f"no node of the cluster has {options.gpus_per_worker:g} GPU for a worker; give --gpus-per-worker 0 to "
        "generate on the CPU, or --workers N if such nodes will join",
        reason="NO_GPU",
    )


def _check_export_per_node(nodes: Sequence[Node], options: PlacementOptions, settings: Mapping[str, str]) -> None:
    if "export" in options.head_services:
        raise FailedPrecondition(
            "--export-per-node: an export server runs on the head node already; end it with `dgx-music ray down`, or "
            "leave the option out",
            reason="EXPORT_ON_HEAD",
        )
    if len(nodes) > 1 and not settings.get("DGX_MUSIC_LIBRARY_URL"):
        raise FailedPrecondition(
            "--export-per-node: several export servers need object storage; set DGX_MUSIC_LIBRARY_URL, or give "
            "--with export to run one on the head node",
            reason="OBJECT_STORAGE_REQUIRED",
        )


def _worker(number: int, common: Mapping[str, str], options: PlacementOptions) -> ServiceSpec:
    devices = {"DGX_MUSIC_DEVICES": "all" if options.gpus_per_worker else "cpu"}  # All that Ray gives the actor.
    return ServiceSpec(
        name=f"{WORKER_PREFIX}{number}",
        service="generation",
        environment={**devices, **common},
        first_port=options.first_port,
        cpus=options.cpus_per_worker,
        gpus=options.gpus_per_worker,
        module=options.module,
    )


def _export_on(node: Node, common: Mapping[str, str], module: str) -> ServiceSpec:
    own = f"{NODE}:{EXPORT_PORT}"
    return ServiceSpec(
        name=f"{EXPORT_PREFIX}{node.ip}",
        service="export",
        environment={"DGX_MUSIC_EXPORT_ADVERTISED_ADDRESS": own, **common, "DGX_MUSIC_LISTEN": own},
        node_resource=f"node:{node.ip}",
        module=module,
    )


def _host(node: Node) -> str:
    return f"[{node.ip}]" if ":" in node.ip else node.ip


def _worker_addresses(nodes: Sequence[Node], options: PlacementOptions) -> list[str]:
    """Returns where workers may listen, the first ports of all nodes before the second ones. Calls leave out those
    where none does. How many workers there are makes no difference, so that the gateway stays when that changes."""
    share = options.gpus_per_worker
    counts = {_host(node): int(node.gpus // share) if share else MAX_CPU_WORKERS for node in nodes}
    if not any(counts.values()):
        counts = dict.fromkeys(counts, 1)  # Nodes with GPUs will join.
    ports = range(max(counts.values()))
    addresses = [f"{host}:{options.first_port + port}" for port in ports for host in counts if port < counts[host]]
    return addresses[:MAX_WORKER_ADDRESSES]


def _list_of(addresses: Sequence[str]) -> str:
    if len(addresses) == 1:
        return addresses[0]
    prefix = "ipv6:" if addresses[0].startswith("[") else "ipv4:"
    return prefix + ",".join(addresses)
