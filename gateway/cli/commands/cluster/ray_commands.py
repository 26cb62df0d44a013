"""`dgx-music ray up`, `status` and `down`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.commands.cluster.ray_session import connect
from gateway.cli.display.console import Console, escape_text
from gateway.cli.session.command_errors import FAILURE, TRY_AGAIN, CommandError
from gateway.cli.session.command_settings import checked_config_file, load_settings
from gateway.config import GatewaySettings

if TYPE_CHECKING:
    from gateway.ray.cluster_state import ActorStatus
    from gateway.ray.placement import PlacementOptions
    from gateway.ray.service_spec import ServiceSpec

DRAIN_MARGIN_SECONDS = 40.0
"""How long a server may take to end beyond its grace: more than its actor allows it."""
STYLES = {"serving": "green", "not_serving": "red", "starting": "yellow", "waiting": "yellow"}


def up(
    console: Console,
    address: str | None,
    namespace: str,
    options: PlacementOptions,
    timeout_seconds: float,
    data_dir: Path | None,
) -> int:
    """Creates, replaces and ends actors until the cluster runs what is wanted, and waits until all are SERVING.

    Raises CommandError, which says what is missing, if they are not in time.
    """
    settings = load_settings(GatewaySettings, data_dir)
    with connect(address, namespace) as cluster:
        from gateway.ray.deployment import Deployment, kept_services
        from gateway.ray.forwarded_settings import merge_settings
        from gateway.ray.placement import plan

        variables = dict(os.environ)
        if data_dir is not None:
            variables["DGX_MUSIC_DATA_DIR"] = str(data_dir.expanduser().absolute())
        forwarded = merge_settings(variables, checked_config_file().values)
        on_head, are_exports_per_node = kept_services(cluster.names())
        options = replace(
            options,
            head_services={*options.head_services, *on_head},
            export_per_node=options.export_per_node or are_exports_per_node,
        )
        specs = plan(cluster.nodes(), options, forwarded)
        deployment = Deployment(cluster, console.print_notice, settings.grace_seconds + DRAIN_MARGIN_SECONDS)
        statuses = deployment.apply(specs, time.monotonic() + timeout_seconds)
        free_gpus = cluster.free_gpus()
    _print(console, statuses)
    _require_serving(specs, statuses, timeout_seconds, free_gpus)
    return 0


def status(console: Console, address: str | None, namespace: str) -> int:
    """Prints the servers. Returns 1 if there are none, or if one is not SERVING."""
    with connect(address, namespace) as cluster:
        statuses, nodes, free_gpus = cluster.statuses(cluster.names()), cluster.nodes(), cluster.free_gpus()
    _print(console, statuses)
    gpus = sum(node.gpus for node in nodes)
    free = f", {free_gpus:g} of {gpus:g} GPUs free" if gpus else ""
    console.print_notice(f"{len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}{free}")
    return 0 if statuses and all(one.state == "serving" for one in statuses) else FAILURE


def down(console: Console, address: str | None, namespace: str, data_dir: Path | None) -> int:
    """Drains and ends all servers: what workers have begun goes back to storage, and later on from there."""
    settings = load_settings(GatewaySettings, data_dir)
    with connect(address, namespace) as cluster:
        from gateway.ray.deployment import Deployment

        Deployment(cluster, console.print_notice, settings.grace_seconds + DRAIN_MARGIN_SECONDS).remove_all()
    return 0


def _print(console: Console, statuses: Sequence[ActorStatus]) -> None:
    if console.as_json:
        for one in statuses:
            shown = asdict(one)
            del shown["fingerprint"], shown["is_final"]
            console.print_object(shown)
        return
    console.print_table(
        (
            ("server", False),
            ("state", False),
            ("address", False),
            ("node", False),
            ("pid", False),
            ("restarts", False),
            ("problem", True),
        ),
        (
            (
                escape_text(one.name),
                f"[{STYLES[one.state]}]{one.state.replace('_', ' ')}[/]",
                escape_text(one.address),
                escape_text(one.node),
                str(one.pid or ""),
                str(one.restarts or ""),
                escape_text(one.problem),
            )
            for one in statuses
        ),
        none="no server of this namespace runs on the cluster; start some with: dgx-music ray up",
    )


def _require_serving(
    specs: Sequence[ServiceSpec], statuses: Sequence[ActorStatus], timeout_seconds: float, free_gpus: float
) -> None:
    by_name = {spec.name: spec for spec in specs}
    missing = [one for one in statuses if one.state != "serving"]
    if not missing:
        return
    problems = []
    for one in missing:
        problem = one.problem
        spec = by_name[one.name]
        if one.state == "waiting" and (spec.gpus or spec.cpus):
            problem = (
                f"waits for a node with {spec.gpus:g} GPU and {spec.cpus:g} CPU free; "
                f"{free_gpus:g} GPUs are free in all"
            )
        problems.append(f"{one.name}: {problem}")
    is_final = any(one.is_final for one in missing)
    when = "" if is_final else f" after {timeout_seconds:g} s"
    way_out = "correct that, and run the command again" if is_final else "they go on starting: see dgx-music ray status"
    line = f"{len(missing)} of {len(statuses)} servers do not serve{when}: {'; '.join(problems)}; {way_out}"
    raise CommandError(line, FAILURE if is_final else TRY_AGAIN, reason="NOT_SERVING")
