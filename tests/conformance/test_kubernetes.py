"""deploy/kubernetes: what `kubectl kustomize` builds is valid, fits together, and can do little."""

from __future__ import annotations

import copy
import functools
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from dgx_music.export.v1 import export_pb2
from dgx_music.gateway.v1 import gateway_pb2
from dgx_music.generation.v1 import generation_pb2
from dgx_music.storage.v1 import storage_pb2
from gateway.settings_catalog import CLASSES
from generation_service.worker.lease import CALL_TIMEOUT_SECONDS
from service_runtime.rpc.health.health_servicer import LIVENESS
from service_runtime.settings import Settings
from storage_service.config import StorageSettings
from storage_service.domain import queue_metrics
from tests.support.dockerfile import image_environment
from tests.support.kubernetes_manifests import (
    FOLDER,
    OVERLAYS,
    ROOT,
    build,
    matches,
    of_kind,
    pod_specs,
)
from tests.support.npm_packages import installed_packages

VERSIONS = ("1.30", kubernetes_validate.latest_version())
"""Of Kubernetes: the oldest that has what the manifests use (preStop's sleep), and the newest."""
JOB = FOLDER / "jobs/pull-models.yaml"
CUSTOM = ("keda.sh", "cert-manager.io")
NAMES = [overlay.name for overlay in OVERLAYS]
CALLS = {"gateway": {"storage", "export", "generation"}, "generation": {"storage", "export"}}
"""Who calls whom, as in ARCHITECTURE.md."""
HEALTH_NAMES = {
    "storage": storage_pb2.DESCRIPTOR.services_by_name["StorageService"].full_name,
    "export": export_pb2.DESCRIPTOR.services_by_name["ExportService"].full_name,
    "generation": generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name,
    "gateway": gateway_pb2.DESCRIPTOR.services_by_name["MusicService"].full_name,
}


@functools.cache
def objects_of(overlay: str) -> list[dict[str, Any]]:
    """The objects of an overlay, and the job that downloads models."""
    job = yaml.safe_load(JOB.read_text())
    return [*build(overlay), job | {"metadata": job["metadata"] | {"name": "pull-models"}}]


def containers_of(overlay: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yields the workload's name, the pod's spec and each container of it, init containers included."""
    for name, spec in pod_specs(objects_of(overlay)).items():
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            yield name, spec, container


def settings_of(overlay: str, container: dict[str, Any]) -> dict[str, str]:
    """The variables of a container that are settings, without secrets."""
    objects = build(overlay)
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            found |= of_kind(objects, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    found |= {one["name"]: one["value"] for one in container.get("env", ()) if "value" in one}
    return {name: value for name, value in found.items() if name.startswith("DGX_MUSIC_")}


@pytest.fixture(autouse=True, scope="module")
def _schemas_are_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield


@pytest.mark.parametrize("version", [pytest.param(VERSIONS[0], marks=pytest.mark.slow), VERSIONS[1]])
def test_objects_are_valid(version: str) -> None:
    different = {json.dumps(one): one for overlay in NAMES for one in objects_of(overlay)}
    for one in different.values():
        if not one["apiVersion"].startswith(CUSTOM):
            kubernetes_validate.validate(one, version, strict=True)


def test_validation_notices_what_is_wrong() -> None:
    (deployment, *_) = of_kind(build("single-host"), "Deployment").values()
    wrong = copy.deepcopy(deployment)
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.timeout(150)
def test_objects_of_keda_and_cert_manager_are_valid() -> None:
    folder = ROOT / "tests/support/custom_resources"
    packages = installed_packages(folder / "package.json")
    found = [one for one in build("many-hosts-tls-keda") if one["apiVersion"].startswith(CUSTOM)]
    assert {one["kind"] for one in found} == {"ScaledObject", "Certificate", "Issuer"}
    wrong = copy.deepcopy(next(one for one in found if one["kind"] == "ScaledObject"))
    wrong["spec"]["maxReplicaCount"] = "eight"
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", (folder / "check.mjs").read_text()],
        cwd=packages.parent,
        input=json.dumps([*found, wrong]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["ScaledObject generation: data/spec/maxReplicaCount must be integer"]


@pytest.mark.parametrize("overlay", NAMES)
def test_pods_fit_the_restricted_security_standard(overlay: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a read-only root."""
    namespace = of_kind(build(overlay), "Namespace")["dgx-music"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for _, spec, container in containers_of(overlay):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not [port for port in container.get("ports", ()) if "hostPort" in port]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        kinds = {next(key for key in volume if key != "name") for volume in spec["volumes"]}
        assert kinds <= {"emptyDir", "persistentVolumeClaim", "secret"}


@pytest.mark.parametrize("overlay", NAMES)
def test_variables_are_settings(overlay: str) -> None:
    for name, _, container in containers_of(overlay):
        known = {variable.removeprefix("DGX_MUSIC_").lower() for variable in settings_of(overlay, container)}
        assert known <= CLASSES.keys(), f"{name}: {known - CLASSES.keys()}"


@pytest.mark.parametrize("overlay", NAMES)
def test_probes_ask_for_health_where_and_as_it_is_served(overlay: str) -> None:
    workloads = of_kind(build(overlay), "Deployment", "StatefulSet")
    assert workloads.keys() == HEALTH_NAMES.keys()
    for name, workload in workloads.items():
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        settings = settings_of(overlay, container)
        health = int(settings["DGX_MUSIC_HEALTH_LISTEN"].rpartition(":")[2])
        probes = {kind: container[f"{kind}Probe"]["grpc"] for kind in ("startup", "liveness", "readiness")}
        assert probes == {
            "startup": {"port": health, "service": LIVENESS},
            "liveness": {"port": health, "service": LIVENESS},
            "readiness": {"port": health, "service": HEALTH_NAMES[name]},
        }
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {
            "grpc": int(settings["DGX_MUSIC_LISTEN"].rpartition(":")[2]),
            "health": health,
            "metrics": int(settings["DGX_MUSIC_METRICS_PORT"]),
        }


@pytest.mark.parametrize("overlay", NAMES)
def test_pods_have_the_time_that_their_drain_may_take(overlay: str) -> None:
    default = Settings.model_fields["grace_seconds"].default
    for name, spec in pod_specs(build(overlay)).items():
        (container,) = spec["containers"]
        grace = float(settings_of(overlay, container).get("DGX_MUSIC_GRACE_SECONDS", default))
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        hand_back = CALL_TIMEOUT_SECONDS if name == "generation" else 0
        needed = before + 2 * grace + hand_back + 10
        assert needed <= spec["terminationGracePeriodSeconds"] <= needed + 30


@pytest.mark.parametrize("overlay", NAMES)
def test_network_policies_draw_the_picture_of_the_architecture(overlay: str) -> None:
    objects = build(overlay)
    labels = {
        name: one["spec"]["template"]["metadata"]["labels"]
        for name, one in of_kind(objects, "Deployment", "StatefulSet").items()
    }
    policies = [one["spec"] for one in of_kind(objects, "NetworkPolicy").values()]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies

    def edges(direction: str, peers: str) -> set[tuple[str, str, int]]:
        """Pairs of pods, and the port, that the policies of a direction allow between pods of the namespace."""
        found = set()
        for policy in policies:
            for rule in policy.get(direction, ()):
                for peer in rule.get(peers, ()):
                    if "podSelector" not in peer:
                        continue
                    own = [name for name in labels if matches(policy["podSelector"], labels[name])]
                    others = [name for name in labels if matches(peer["podSelector"], labels[name])]
                    ports = [port["port"] for port in rule["ports"]]
                    found |= {(one, other, port) for one in own for other in others for port in ports}
        return found

    services = of_kind(objects, "Service")
    wanted = {
        (caller, called, services[called]["spec"]["ports"][0]["port"])
        for caller, callees in CALLS.items()
        for called in callees
    }
    assert edges("egress", "to") == wanted
    assert {(caller, called, port) for called, caller, port in edges("ingress", "from")} == wanted
    open_to_all = [
        (name, rule)
        for policy in policies
        for rule in policy.get("ingress", ())
        if "from" not in rule
        for name in labels
        if matches(policy["podSelector"], labels[name])
    ]
    assert open_to_all == [("gateway", {"ports": [{"port": 50050}]})]


@pytest.mark.parametrize("overlay", NAMES)
def test_what_is_named_exists(overlay: str) -> None:
    objects = build(overlay)
    workloads = of_kind(objects, "Deployment", "StatefulSet")
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in workloads.values()]
    for service in of_kind(objects, "Service").values():
        assert [one for one in labels if service["spec"]["selector"].items() <= one.items()]
    for name, workload in workloads.items():
        budget = of_kind(objects, "PodDisruptionBudget")[name]
        own = workload["spec"]["template"]["metadata"]["labels"]
        assert matches(budget["spec"]["selector"], own)
        assert matches(workload["spec"]["selector"], own)
    for name, spec, container in containers_of(overlay):
        claims = [
            one["metadata"]["name"] for one in workloads.get(name, {}).get("spec", {}).get("volumeClaimTemplates", ())
        ]
        volumes = {one["name"]: one for one in spec["volumes"]} | {claim: {} for claim in claims}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
        assert {"/data", "/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
        for volume in volumes.values():
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in of_kind(objects, "PersistentVolumeClaim")
        for source in container.get("envFrom", ()):
            if "configMapRef" in source:
                assert source["configMapRef"]["name"] in of_kind(objects, "ConfigMap")
    stateful = of_kind(objects, "StatefulSet")["export"]["spec"]
    assert of_kind(objects, "Service")[stateful["serviceName"]]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("overlay", NAMES)
def test_images_are_those_of_the_dockerfile(overlay: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name, _, container in containers_of(overlay):
        image = "dgx-music-generation" if name in ("generation", "pull-models") else "dgx-music"
        assert container["image"] == f"registry.example.org/{image}:{version}"
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name == "generation")
    assert image_environment()["DGX_MUSIC_DATA_DIR"] == "/data"


@pytest.mark.parametrize("overlay", NAMES)
def test_secrets_are_files_that_only_their_owner_reads(overlay: str) -> None:
    for name, spec, container in containers_of(overlay):
        secrets = {one["name"]: one["secret"] for one in spec["volumes"] if "secret" in one}
        assert {one["defaultMode"] for one in secrets.values()} <= {0o400}
        paths = {mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in secrets}
        assert all(mount.get("readOnly") for mount in container["volumeMounts"] if mount["name"] in secrets)
        if name != "pull-models" and container in spec["containers"]:
            for variable, value in settings_of(overlay, container).items():
                if variable.endswith("_FILE"):
                    assert value.rpartition("/")[0] in paths
    assert not [one for one in build(overlay) if one["kind"] == "Secret"]


def test_many_hosts_have_no_single_point_of_their_own() -> None:
    objects = build("many-hosts")
    for name, workload in of_kind(objects, "Deployment", "StatefulSet").items():
        assert workload["spec"]["replicas"] >= 2, name
        spec = workload["spec"]["template"]["spec"]
        if name != "generation":
            (constraint,) = spec["topologySpreadConstraints"]
            assert matches(constraint["labelSelector"], workload["spec"]["template"]["metadata"]["labels"])
    assert of_kind(objects, "PersistentVolumeClaim")["models"]["spec"]["accessModes"] == ["ReadWriteMany"]
    (container,) = pod_specs(objects)["storage"]["containers"]
    assert "DGX_MUSIC_DATABASE_URL_FILE" in settings_of("many-hosts", container)


def test_single_host_has_one_storage_server_at_a_time() -> None:
    storage = of_kind(build("single-host"), "Deployment")["storage"]["spec"]
    assert (storage["replicas"], storage["strategy"]) == (1, {"type": "Recreate"})
    (container,) = storage["template"]["spec"]["containers"]
    assert not {"DGX_MUSIC_DATABASE_URL", "DGX_MUSIC_DATABASE_URL_FILE"} & settings_of("single-host", container).keys()
    assert StorageSettings.model_fields["database_url"].default is None


def test_pods_are_scaled_by_a_metric_that_storage_has() -> None:
    objects = build("many-hosts-tls-keda")
    scaled = of_kind(objects, "ScaledObject")["generation"]["spec"]
    assert scaled["scaleTargetRef"] == {"name": "generation"}
    assert "replicas" not in of_kind(objects, "Deployment")["generation"]["spec"]
    source = Path(queue_metrics.__file__).read_text()
    names = set()
    for trigger in scaled["triggers"]:
        metric, state = re.fullmatch(r'(\w+)\{state="(\w+)"\}', trigger["metadata"]["valueLocation"]).groups()
        assert f'"{metric}"' in source
        assert state == trigger["name"]
        names.add(state)
    assert names == {"pending", "processing"}
    assert scaled["advanced"]["scalingModifiers"]["formula"] == "pending + processing"


def test_certificate_has_the_names_that_are_called() -> None:
    objects = build("many-hosts-tls-keda")
    certificate = of_kind(objects, "Certificate")["services"]["spec"]
    (container,) = pod_specs(objects)["export"]["containers"]
    settings = settings_of("many-hosts-tls-keda", container)
    called = {re.sub(r"dns:///|:\d+", "", value) for name, value in settings.items() if name.endswith("_ADDRESS")}
    advertised = {name for name in called if "$(POD_NAME)" in name}
    assert advertised == {"$(POD_NAME).export-pods.$(POD_NAMESPACE).svc"}
    assert {*called - advertised, "*.export-pods.dgx-music.svc", "gateway"} <= {*certificate["dnsNames"]}
    assert certificate["uris"] == ["dgx-music:service"]
    assert (
        of_kind(objects, "Deployment")["storage"]["spec"]["template"]["spec"]["volumes"][-1]["secret"]["secretName"]
        == certificate["secretName"]
    )
