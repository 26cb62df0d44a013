"""The manifests of deploy/kubernetes, as `kubectl kustomize` builds them, and their pods as plain processes: each with
its own loopback address for an IP, a folder for each volume, and nothing in its environment but what the manifest
says."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.channel import connect
from tests.support.command_line import DGX_MUSIC
from tests.support.dockerfile import image_environment

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
OVERLAYS = sorted(path.parent for path in FOLDER.glob("overlays/*/kustomization.yaml"))
WORKLOADS = ("Deployment", "StatefulSet", "Job")
START_SECONDS = 150.0
INHERITED = re.compile(r"PYTHON|COV|OMP_|LD_|TMPDIR$")
"""What Python and the measurement of coverage need; the image has it in other ways."""


@functools.cache
def build(overlay: str) -> list[dict[str, Any]]:
    """The objects of an overlay, which are not to be changed."""
    kubectl = Path(sys.executable).with_name("kubectl")
    command = [kubectl, "kustomize", FOLDER / "overlays" / overlay]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> dict[str, dict[str, Any]]:
    """Name → object."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] in kinds}


def pod_specs(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name of the workload → the spec of its pods."""
    return {name: one["spec"]["template"]["spec"] for name, one in of_kind(objects, *WORKLOADS).items()}


def matches(selector: dict[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector (of labels alone, as these manifests have them) selects what has the labels."""
    assert not set(selector) - {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


@dataclass
class Pod:
    """One pod of a workload."""

    name: str
    workload: dict[str, Any]
    ip: str
    folder: Path
    """Of its volumes, one folder each."""
    process: Process | None = None
    log: bytes = b""
    _reader: asyncio.Task[None] | None = None

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.workload["spec"]["template"]["spec"]
        return spec

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.workload["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.spec["containers"]
        assert isinstance(container, dict)
        return container

    async def check(self, probe: str) -> str:
        """Makes the call of a probe as the kubelet does, without TLS and tokens. Returns the state."""
        called = self.container[probe]["grpc"]
        async with connect(f"{self.ip}:{called['port']}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=called["service"])
            answer = await health.Check(request, timeout=START_SECONDS, wait_for_ready=True)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    async def wait_until_ready(self) -> None:
        """Waits for the probes of start and readiness. Fails with its log if the pod ends before."""
        assert self.process is not None
        ready, ended = asyncio.ensure_future(self._wait_until_ready()), asyncio.ensure_future(self.process.wait())
        await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not ready.done():
            ready.cancel()
            raise AssertionError(f"{self.name} has ended: {self.log.decode()}")
        await ready

    async def _wait_until_ready(self) -> None:
        assert await self.check("startupProbe") == "SERVING"
        called = self.container["readinessProbe"]["grpc"]
        async with connect(f"{self.ip}:{called['port']}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=called["service"])
            async for answer in health.Watch(request, timeout=START_SECONDS):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        raise AssertionError(self.log.decode())

    async def end(self) -> int:
        """Sends SIGTERM, and returns the exit status; fails if that takes longer than the pod is given."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        await asyncio.wait_for(self.process.wait(), self.spec["terminationGracePeriodSeconds"])
        if self._reader is not None:
            await self._reader
        return self.process.returncode or 0

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()

    def read_log(self) -> None:
        async def read(process: Process) -> None:
            assert process.stderr is not None
            while line := await process.stderr.readline():
                self.log += line

        assert self.process is not None
        self._reader = asyncio.create_task(read(self.process))


@dataclass
class Cluster:
    """The pods of an overlay, and what gives them addresses, volumes and secrets."""

    objects: list[dict[str, Any]]
    folder: Path
    secrets: dict[str, dict[str, str]]
    """Secret → key → value: what the administrator creates."""
    overrides: dict[str, str] = field(default_factory=dict)
    """Variables in place of what this machine lacks: a GPU, say."""
    network: str = "127.77.0"
    pods: list[Pod] = field(default_factory=list)

    def __post_init__(self) -> None:
        for workload in of_kind(self.objects, "Deployment", "StatefulSet").values():
            for number in range(workload["spec"].get("replicas", 1)):
                name = f"{workload['metadata']['name']}-{number}"
                ip = f"{self.network}.{len(self.pods) + 1}"
                self.pods.append(Pod(name, workload, ip, self.folder / name))

    def of(self, component: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.workload["metadata"]["name"] == component]

    async def start(self, pod: Pod) -> None:
        """Runs the pod's init containers, and starts its container."""
        for container in pod.spec.get("initContainers", ()):
            process = await asyncio.create_subprocess_exec(
                DGX_MUSIC, *container["args"], env=self.environment(pod, container), stderr=PIPE, stdout=DEVNULL
            )
            _, log = await asyncio.wait_for(process.communicate(), START_SECONDS)
            assert process.returncode == 0, log.decode()
        pod.process = await asyncio.create_subprocess_exec(
            DGX_MUSIC, *pod.container["args"], env=self.environment(pod, pod.container), stderr=PIPE
        )
        pod.read_log()

    async def execute(self, pod: Pod, *command: str) -> str:
        """`kubectl exec`: returns what a command prints that is run with the container's environment."""
        process = await asyncio.create_subprocess_exec(
            *command, env=self.environment(pod, pod.container), stdout=PIPE, stderr=PIPE
        )
        output, log = await asyncio.wait_for(process.communicate(), START_SECONDS)
        assert process.returncode == 0, log.decode()
        return output.decode().strip()

    def kill(self) -> None:
        for pod in self.pods:
            pod.kill()

    def environment(self, pod: Pod, container: dict[str, Any]) -> dict[str, str]:
        """The variables of a container, with the paths and addresses that they have here."""
        variables = dict(self._declared(pod, container))
        for _ in variables:  # A variable may contain those before it.
            variables = {name: expand(value, variables) for name, value in variables.items()}
        mounts = {mount["mountPath"]: self._volume(pod, mount["name"]) for mount in container["volumeMounts"]}
        image = image_environment() | {"HOME": "/home/dgx-music"}
        local = {name: self._local(pod, value, mounts) for name, value in (image | variables).items()}
        if "nvidia.com/gpu" in container["resources"].get("limits", {}):
            local["DGX_MUSIC_DEVICES"] = "cpu"  # There is no GPU here.
        inherited = {name: value for name, value in os.environ.items() if INHERITED.match(name)}
        path = f"{DGX_MUSIC.parent}:{os.environ['PATH']}"
        return inherited | local | self.overrides | {"PATH": path, "DGX_MUSIC_CONFIG": os.devnull}

    def _declared(self, pod: Pod, container: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for source in container.get("envFrom", ()):
            yield from of_kind(self.objects, "ConfigMap")[source["configMapRef"]["name"]]["data"].items()
        fields = {"metadata.name": pod.name, "metadata.namespace": "dgx-music"}
        for variable in container.get("env", ()):
            if "value" in variable:
                yield variable["name"], variable["value"]
            else:
                yield variable["name"], fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]

    def _volume(self, pod: Pod, name: str) -> Path:
        """The folder of a volume: a secret's with its files, one of the pod's own, or one that pods share."""
        claims = [one["metadata"]["name"] for one in pod.workload["spec"].get("volumeClaimTemplates", ())]
        volumes = {one["name"]: one for one in pod.spec["volumes"]} | {one: {"emptyDir": {}} for one in claims}
        if claim := volumes[name].get("persistentVolumeClaim"):
            folder = self.folder / "claims" / claim["claimName"]
            assert claim["claimName"] in of_kind(self.objects, "PersistentVolumeClaim")
        else:
            folder = pod.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if secret := volumes[name].get("secret"):
            for key, value in self.secrets[secret["secretName"]].items():
                (folder / key).write_text(value)
                (folder / key).chmod(0o600)
        return folder

    def _local(self, pod: Pod, value: str, mounts: dict[str, Path]) -> str:
        for path, folder in mounts.items():
            if value == path or value.startswith(f"{path}/"):
                return str(folder) + value.removeprefix(path)
        value = re.sub(r"^(0\.0\.0\.0|127\.0\.0\.1)(?=:|$)", pod.ip, value)
        if found := re.fullmatch(r"dns:///([a-z-]+):(\d+)", value):
            return "ipv4:" + ",".join(f"{one.ip}:{found[2]}" for one in self.behind(found[1], int(found[2])))
        if found := re.fullmatch(r"([a-z]+-\d+)\.([a-z-]+)\.dgx-music\.svc:(\d+)", value):
            (named,) = (one for one in self.behind(found[2], int(found[3])) if one.name == found[1])
            return f"{named.ip}:{found[3]}"
        return value

    def behind(self, service: str, port: int) -> list[Pod]:
        """The pods that a Service leads to at a port."""
        spec = of_kind(self.objects, "Service")[service]["spec"]
        assert port in [one["port"] for one in spec["ports"]], f"{service} has no port {port}"
        return [pod for pod in self.pods if spec["selector"].items() <= pod.labels.items()]


def expand(value: str, variables: Mapping[str, str]) -> str:
    """Replaces $(NAME), as the kubelet does."""
    return re.sub(r"\$\(([A-Z_]+)\)", lambda found: variables.get(found[1], found[0]), value)
