"""compose.yaml: it is valid, and its commands, run as plain processes, form a working system."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import yaml

from dgx_music.access.v1 import access_pb2
from dgx_music.channel import connect
from dgx_music.credentials import Credentials
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.storage.v1 import storage_pb2
from generation_service.config import GenerationSettings
from generation_service.models.discovery import find_installed_models
from service_runtime.rpc.probe import probe
from tests.support.access_services import SERVICE_TOKEN
from tests.support.compose_containers import Containers, of_profiles, own_services, read_env_file
from tests.support.dockerfile import copied_paths, image_environment, pip_arguments
from tests.support.health import wait_until_healthy
from tests.support.processes import wait_until_serving
from tests.support.tls_files import LOOPBACK, make_tls_files

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
VARIABLES = {"DGX_MUSIC_SERVICE_TOKEN": SERVICE_TOKEN, "DGX_MUSIC_DEVICES": "cpu"}
"""Those of the shell: the secret of the services, and that there is no GPU."""


@pytest.mark.parametrize("file", ["compose.yaml", "deploy/compose.secrets.yaml"])
def test_compose_file_is_valid(file: str) -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / file]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout


def test_paths_copied_into_the_image_exist() -> None:
    copied = copied_paths()
    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []


def test_only_generation_has_the_image_with_torch() -> None:
    services = own_services()
    installed = {name: pip_arguments(service["build"]["target"]) for name, service in services.items()}
    assert installed.pop("generation") == ["/requirements/generation.txt", "/wheels/*.whl"]
    assert set(map(tuple, installed.values())) == {("/requirements/services.txt", "/wheels/*.whl")}
    images = {service["image"]: service["build"]["target"] for service in services.values()}
    assert images == {"dgx-music": "services", "dgx-music-generation": "generation"}


def test_dockerfile_follows_the_rules_of_hadolint() -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / "deploy/Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


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
    services = own_services()
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
    assert overlay["services"].keys() == own_services().keys()
    for service in overlay["services"].values():
        environment = service["environment"]
        assert environment["DGX_MUSIC_SERVICE_TOKEN"] == ""
        assert environment["DGX_MUSIC_SERVICE_TOKEN_FILE"] == "/run/secrets/service-token"
        assert set(service["secrets"]) <= overlay["secrets"].keys()
    assert all(line in (ROOT / ".gitignore").read_text() for line in ("/secrets/",))


def test_generation_finds_the_models_in_its_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = own_services()
    assert services["generation"]["volumes"] == ["models:/data"]
    for name, value in image_environment().items():
        monkeypatch.setenv(name, value.replace("/data", str(tmp_path)))
    for folder in ("huggingface/hub/models--facebook--musicgen-small/snapshots/commit", "models/own"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "state_dict.bin").touch()
    assert set(find_installed_models(GenerationSettings()).names) == {"musicgen-small", "own", "sketch"}


async def test_services_run_as_plain_processes(tmp_path: Path) -> None:
    containers = Containers(of_profiles("network"), tmp_path, VARIABLES)
    network = containers.address("network-gateway")
    tls = make_tls_files(tmp_path / "tls/tls")
    tls.issue((*LOOPBACK, network.partition(":")[0]))
    shown = {"network-gateway": tls.credentials(token=SERVICE_TOKEN)}
    async with serving(containers, shown):
        await create_generation(containers.address("gateway"), Credentials(), tmp_path / "library")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await create_generation(network, tls.credentials(), tmp_path / "library")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        token = await create_token(containers.address("gateway"), "studio")
        assert await create_generation(network, tls.credentials(token=token), tmp_path / "library") == "studio"


@asynccontextmanager
async def serving(containers: Containers, shown: Mapping[str, Credentials]) -> AsyncIterator[None]:
    """Starts all containers, waits until their health checks succeed, and ends them with the block."""
    try:
        for name, service in containers.services.items():
            # Here it listens on loopback too.
            settings = {"DGX_MUSIC_REQUIRE_TOKENS": "true"} if name == "network-gateway" else {}
            await containers.start(name, **settings)
            check = service["healthcheck"]["test"]
            assert check[-3:-1] == ["-m", "service_runtime.rpc.probe"]
            assert check[-1].rpartition(":")[2] == service["environment"]["DGX_MUSIC_LISTEN"].rpartition(":")[2]
        for process in containers.processes.values():
            await wait_until_serving(process)
        for name in containers.services:
            credentials = shown.get(name, Credentials())
            await wait_until_healthy(containers.address(name), credentials)
            assert await probe(containers.address(name), credentials) is None
        yield
    finally:
        for process in containers.processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        codes = {name: (await exit_code(process)) for name, process in containers.processes.items()}
    assert codes == dict.fromkeys(containers.services, 0)


def test_profile_many_has_two_of_each_service_under_one_name() -> None:
    services = of_profiles("many")
    containers = Containers(services, Path(), many_variables("s3"))
    settings = containers.environment("gateway")
    for service in ("storage", "export"):
        addresses = settings[f"DGX_MUSIC_{service.upper()}_ADDRESS"].removeprefix("ipv4:").split(",")
        assert addresses == [containers.address(service), containers.address(f"{service}-2")]
    for name in ("export", "export-2"):
        environment = containers.environment(name)
        assert environment["DGX_MUSIC_EXPORT_ADVERTISED_ADDRESS"] == containers.address(name)
        assert environment["AWS_SECRET_ACCESS_KEY"] == "s3"
    assert containers.volume("export") != containers.volume("export-2")
    assert (
        containers.environment("storage-2")["DGX_MUSIC_DATABASE_URL"] == "postgresql://dgx_music:p@postgres/dgx_music"
    )
    # Without the profile there is none of that.
    alone = Containers(of_profiles(), Path(), {}).environment("export")
    assert not {name for name in alone if name.startswith("AWS_")}
    assert alone["DGX_MUSIC_LIBRARY_URL"] == alone["DGX_MUSIC_EXPORT_ADVERTISED_ADDRESS"] == ""


def many_variables(secret: str) -> dict[str, str]:
    """Those of deploy/many.env and of .env."""
    secrets = {"DGX_MUSIC_POSTGRES_PASSWORD": "p", "AWS_SECRET_ACCESS_KEY": secret}
    return secrets | read_env_file(ROOT / "deploy/many.env", secrets)


def test_gateways_that_other_machines_reach_require_tls_and_tokens() -> None:
    services = own_services()
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published.pop("gateway") == ["127.0.0.1:50050:50050"]
    assert published.pop("gateway-2") == ["127.0.0.1:50054:50050"]
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


async def exit_code(process: asyncio.subprocess.Process) -> int | None:
    await asyncio.wait_for(process.communicate(), 60)
    return process.returncode
