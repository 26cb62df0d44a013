"""What runs where, by what the cluster has and what is asked for."""

from __future__ import annotations

import pytest

from dgx_music.errors import FailedPrecondition
from gateway.ray.cluster_state import HEAD_RESOURCE, Node
from gateway.ray.placement import PlacementOptions, plan
from gateway.ray.service_spec import ServiceSpec

HEAD = Node("a", "10.0.0.1", 0.0, is_head=True)
GPU_NODES = [Node("b", "10.0.0.2", 8.0, is_head=False), Node("c", "10.0.0.3", 7.0, is_head=False)]
NODES = [HEAD, *GPU_NODES]


def by_name(specs: list[ServiceSpec]) -> dict[str, ServiceSpec]:
    return {spec.name: spec for spec in specs}


@pytest.mark.parametrize(("gpus", "workers"), [(1.0, 15), (2.0, 7), (0.5, 30), (8.0, 1), (0.0, 3)])
def test_a_worker_for_each_share_of_gpus_of_a_node_or_one_for_each_node(gpus: float, workers: int) -> None:
    specs = plan(NODES, PlacementOptions(gpus_per_worker=gpus), {})
    assert [spec.name for spec in specs] == [f"generation-{number}" for number in range(workers)]
    assert {spec.environment["DGX_MUSIC_DEVICES"] for spec in specs} == {"all" if gpus else "cpu"}


def test_cluster_without_gpu_is_refused_unless_the_number_is_given() -> None:
    with pytest.raises(FailedPrecondition, match="--gpus-per-worker 0"):
        plan([HEAD], PlacementOptions(), {})
    assert len(plan([HEAD], PlacementOptions(workers=2), {})) == 2


def test_services_come_after_those_that_they_call_and_find_them_on_the_head() -> None:
    options = PlacementOptions(workers=1, head_services=["gateway", "export", "storage"])
    specs = plan(NODES, options, {})
    assert [spec.name for spec in specs] == ["storage", "export", "generation-0", "gateway"]
    found = by_name(specs)
    assert {spec.node_resource for name, spec in found.items() if name != "generation-0"} == {HEAD_RESOURCE}
    assert found["generation-0"].environment["DGX_MUSIC_STORAGE_ADDRESS"] == "10.0.0.1:50052"
    assert found["generation-0"].environment["DGX_MUSIC_EXPORT_ADDRESS"] == "10.0.0.1:50053"
    workers = found["gateway"].environment["DGX_MUSIC_GENERATION_ADDRESS"]
    assert workers.startswith("ipv4:10.0.0.2:50061,10.0.0.3:50061,10.0.0.2:50062,10.0.0.3:50062,")
    assert workers.count(",") == 8 + 7 - 1
    assert workers.endswith(",10.0.0.2:50068")


def test_export_on_each_node_needs_object_storage() -> None:
    options = PlacementOptions(workers=1, export_per_node=True, head_services=["gateway"])
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_LIBRARY_URL"):
        plan(NODES, options, {})
    found = by_name(plan(NODES, options, {"DGX_MUSIC_LIBRARY_URL": "s3://music"}))
    assert list(found) == ["export-10.0.0.1", "export-10.0.0.2", "export-10.0.0.3", "generation-0", "gateway"]
    export = found["export-10.0.0.2"]
    assert export.node_resource == "node:10.0.0.2"
    assert export.environment["DGX_MUSIC_EXPORT_ADVERTISED_ADDRESS"] == "{node}:50053"
    assert found["generation-0"].environment["DGX_MUSIC_EXPORT_ADDRESS"] == "{node}:50053"
    exports = "ipv4:10.0.0.1:50053,10.0.0.2:50053,10.0.0.3:50053"
    assert found["gateway"].environment["DGX_MUSIC_EXPORT_ADDRESS"] == exports
    with pytest.raises(FailedPrecondition, match="ray down"):
        plan(NODES, PlacementOptions(export_per_node=True, head_services=["export"]), {})


def test_settings_take_precedence_and_go_where_they_are_read() -> None:
    options = PlacementOptions(workers=1, head_services=["storage", "gateway"])
    settings = {"DGX_MUSIC_STORAGE_ADDRESS": "db:1", "DGX_MUSIC_DATABASE_URL": "postgresql://u:secret@db/music"}
    found = by_name(plan(NODES, options, settings))
    assert found["generation-0"].environment["DGX_MUSIC_STORAGE_ADDRESS"] == "db:1"
    assert [name for name, spec in found.items() if "DGX_MUSIC_DATABASE_URL" in spec.environment] == ["storage"]
    assert "secret" not in repr(found)


def test_gateway_knows_first_ports_before_others_and_not_too_many() -> None:
    options = PlacementOptions(workers=1, gpus_per_worker=0, head_services=["gateway"])
    for nodes, count in ((NODES[:1], 4), (NODES, 12)):
        addresses = by_name(plan(nodes, options, {}))["gateway"].environment["DGX_MUSIC_GENERATION_ADDRESS"]
        assert addresses.count(",") + 1 == count
    many = [Node(str(number), f"10.0.1.{number}", 8.0, is_head=number == 0) for number in range(100)]
    addresses = by_name(plan(many, PlacementOptions(workers=1, head_services=["gateway"]), {}))["gateway"]
    assert addresses.environment["DGX_MUSIC_GENERATION_ADDRESS"].count(":50061") == 64


def test_a_node_more_changes_nothing_but_the_gateway() -> None:
    options = PlacementOptions(workers=1, head_services=["storage", "export", "gateway"])
    before, after = by_name(plan(NODES[:2], options, {})), by_name(plan(NODES, options, {}))
    assert [name for name in before if before[name].fingerprint() != after[name].fingerprint()] == ["gateway"]
