"""compose.yaml: it is valid, and its commands, run as plain processes, form a working system."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.access.v1 import access_pb2
from dgx_music.channel import connect
from dgx_music.credentials import Credentials
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.storage.v1 import storage_pb2
from generation_service.config import GenerationSettings
from generation_service.models.discovery import find_installed_models
from service_runtime.rpc.probe import probe
from tests.support.access_services import SERVICE_TOKEN
from tests.support.processes import free_ports, wait_until_serving
from tests.support.tls_files import make_tls_files

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
CONTAINER_PORTS = {
    "storage": "50052",
    "export": "50053",
    "generation": "50051",
    "gateway": "50050",
    "network-gateway": "50443",
}


@pytest.mark.parametrize("file", ["compose.yaml", "deploy/compose.secrets.yaml"])
def test_compose_file_is_valid(file: str) -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / file]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout


def test_paths_copied_into_the_image_exist() -> None:
    lines = (ROOT / "deploy/Dockerfile").read_text().splitlines()
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []


def test_only_generation_has_the_image_with_torch() -> None:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    stages = stage_lines((ROOT / "deploy/Dockerfile").read_text())
    installed = {name: pip_arguments(service["build"]["target"], stages) for name, service in services.items()}
    assert installed.pop("generation") == ["/requirements/generation.txt", "/wheels/*.whl"]
    assert set(map(tuple, installed.values())) == {("/requirements/services.txt", "/wheels/*.whl")}
    images = {service["image"]: service["build"]["target"] for service in services.values()}
    assert images == {"dgx-music": "services", "dgx-music-generation": "generation"}


def test_image_installs_nothing_that_is_not_pinned() -> None:
    commands = re.findall(r"pip (?:install|wheel) (.+)", (ROOT / "deploy/Dockerfile").read_text())
    assert len(commands) == 6
    for command in commands:
        is_pinned = "--require-hashes --only-binary :all: -r /requirements/" in command
        assert is_pinned or "--no-deps" in command
    assert all(
        "--no-index" in command or "--no-build-isolation" in command for command in commands if "-r" not in command
    )


def test_containers_can_do_little() -> None:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    uid = re.search(r"useradd --uid (\d+)", (ROOT / "deploy/Dockerfile").read_text())
    assert uid is not None
    for service in services.values():
        assert service["user"] == f"{uid[1]}:{uid[1]}"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]  # And no seccomp:unconfined.
        assert 0 < service["pids_limit"] <= 8192
        assert service["mem_limit"].startswith("${DGX_MUSIC_")
        assert service["logging"]["options"]["max-size"]
        assert service["healthcheck"]["test"]
        unwanted = {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode"}
        assert not unwanted & service.keys()
        assert all(":/data" in volume and not volume.startswith(("/", ".")) for volume in service.get("volumes", ()))


def test_secrets_are_files_in_all_containers() -> None:
    overlay = yaml.safe_load((ROOT / "deploy/compose.secrets.yaml").read_text())
    assert overlay["services"].keys() == yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].keys()
    for service in overlay["services"].values():
        environment = service["environment"]
        assert environment["DGX_MUSIC_SERVICE_TOKEN"] == ""
        assert environment["DGX_MUSIC_SERVICE_TOKEN_FILE"] == "/run/secrets/service-token"
        assert set(service["secrets"]) <= overlay["secrets"].keys()
    assert all(line in (ROOT / ".gitignore").read_text() for line in ("/secrets/",))


def test_generation_finds_the_models_in_its_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert services["generation"]["volumes"] == ["models:/data"]
    for name, value in image_environment(str(tmp_path)).items():
        monkeypatch.setenv(name, value)
    for folder in ("huggingface/hub/models--facebook--musicgen-small/snapshots/commit", "models/own"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "state_dict.bin").touch()
    assert set(find_installed_models(GenerationSettings()).names) == {"musicgen-small", "own", "sketch"}


async def test_services_run_as_plain_processes(tmp_path: Path) -> None:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    ports = {name: str(port) for name, port in zip(services, free_ports(len(services)), strict=True)}
    tls = make_tls_files(tmp_path / "network-gateway/tls")
    processes: dict[str, asyncio.subprocess.Process] = {}
    try:
        for name, service in services.items():
            volume = tmp_path / name  # Each container has its own data folder.
            volume.mkdir(exist_ok=True, parents=True)
            settings = {key: local_value(value, ports) for key, value in service["environment"].items()}
            settings = {key: value.replace("/data/", f"{volume}/") for key, value in settings.items()}
            settings |= image_environment(str(volume)) | {"DGX_MUSIC_SERVICE_TOKEN": SERVICE_TOKEN}
            if name == "network-gateway":  # Here it listens on loopback too.
                settings["DGX_MUSIC_REQUIRE_TOKENS"] = "true"
            processes[name] = await asyncio.create_subprocess_exec(
                BIN / "dgx-music",
                *service["command"],
                env={**os.environ, **settings},
                stderr=asyncio.subprocess.PIPE,
            )
        shown = {name: Credentials() for name in services} | {
            "network-gateway": tls.credentials(token=SERVICE_TOKEN),
        }
        for name, process in processes.items():
            await wait_until_serving(process)
            check = services[name]["healthcheck"]["test"]
            assert check[-3:-1] == ["-m", "service_runtime.rpc.probe"]
            assert check[-1].rpartition(":")[2] == services[name]["environment"]["DGX_MUSIC_LISTEN"].rpartition(":")[2]
        for name, port in ports.items():
            await wait_until_healthy(port, shown[name])
            assert await probe(f"127.0.0.1:{port}", shown[name]) is None
        await create_generation(f"127.0.0.1:{ports['gateway']}", Credentials(), tmp_path / "export")
        network = f"127.0.0.1:{ports['network-gateway']}"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await create_generation(network, tls.credentials(), tmp_path / "export")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        token = await create_token(f"127.0.0.1:{ports['gateway']}", "studio")
        assert await create_generation(network, tls.credentials(token=token), tmp_path / "export") == "studio"
    finally:
        for process in processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        codes = {name: (await exit_code(process)) for name, process in processes.items()}
    assert codes == dict.fromkeys(services, 0)


def test_gateways_that_other_machines_reach_require_tls_and_tokens() -> None:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published.pop("gateway") == ["127.0.0.1:50050:50050"]
    assert list(published) == ["network-gateway"]
    assert services["network-gateway"]["environment"]["DGX_MUSIC_ALLOW_INSECURE_LISTEN"] == "false"


async def create_token(address: str, name: str) -> str:
    async with connect(address) as channel:
        request = access_pb2.CreateTokenRequest(name=name, scope=access_pb2.SCOPE_GENERATE)
        return (await gateway_pb2_grpc.MusicServiceStub(channel).CreateToken(request, timeout=60)).secret


async def create_generation(address: str, credentials: Credentials, library: Path) -> str:
    """Returns the client that the generation is for."""
    async with connect(address, credentials) as channel:
        music = gateway_pb2_grpc.MusicServiceStub(channel)
        request = storage_pb2.CreateGenerationRequest(
            request_id=str(uuid.uuid4()), prompt="techno at 130 BPM", duration_seconds=2
        )
        created = (await music.CreateGeneration(request, timeout=60)).generation
        states = [
            answer.generation
            async for answer in music.WatchGeneration(storage_pb2.WatchGenerationRequest(id=created.id), timeout=60)
        ]
        assert states[-1].state == storage_pb2.GENERATION_STATE_COMPLETED, states[-1].error_message
        assert (library / states[-1].file_path).stat().st_size == states[-1].file_size_bytes
        return states[-1].client


def stage_lines(dockerfile: str) -> dict[str, list[str]]:
    """Returns the lines of each stage by its name, the FROM line first."""
    stages: dict[str, list[str]] = {}
    for line in dockerfile.splitlines():
        if line.startswith("FROM "):
            lines = stages[line.split()[-1]] = []
        if line and not line.startswith("#"):
            lines.append(line)
    return stages


def pip_arguments(stage: str, stages: dict[str, list[str]]) -> list[str]:
    """Returns what pip installs in a stage, in the stages that it builds on, and where it copies the result from."""
    if stage not in stages:
        return []
    first, *lines = stages[stage]
    installed = pip_arguments(first.split()[1], stages)
    for line in lines:
        if found := re.fullmatch(r"COPY --from=(\S+) /opt/dgx-music /opt/dgx-music", line):
            installed += pip_arguments(found[1], stages)
        elif found := re.match(r"RUN /opt/dgx-music/bin/pip install (.+?)(?: &&|$)", line):
            installed.append(shlex.split(found[1])[-1])
    return installed


def image_environment(volume: str) -> dict[str, str]:
    """Returns the environment that the images set, with the volume at the given path."""
    base = stage_lines((ROOT / "deploy/Dockerfile").read_text())["base"]
    (line,) = [line for line in base if line.startswith("ENV ")]
    settings = dict(setting.split("=", 1) for setting in line.split()[1:])
    del settings["PATH"]
    return {name: value.replace("/data", volume) for name, value in settings.items()}


def local_value(value: str, ports: dict[str, str]) -> str:
    """Returns a setting of a container as a process on this machine needs it."""
    host, _, port = value.rpartition(":")
    for name, free in ports.items():
        if port and port == CONTAINER_PORTS[name]:
            return f"127.0.0.1:{free}" if host in (name, "0.0.0.0") else value
    return "" if value.startswith("${") else value


async def wait_until_healthy(port: str, credentials: Credentials) -> None:
    """Returns when all services at the port are SERVING."""
    async with connect(f"127.0.0.1:{port}", credentials) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        async for answer in health.Watch(health_pb2.HealthCheckRequest(), timeout=60):
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise AssertionError(f"the server at {port} ended")


async def exit_code(process: asyncio.subprocess.Process) -> int | None:
    await asyncio.wait_for(process.communicate(), 60)
    return process.returncode
