"""Server processes, called with `buf curl` as an independent client."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.command_line import environment as settings
from tests.support.processes import free_ports

BIN = Path(sys.executable).parent
TIMEOUT_SECONDS = 120.0
SERVICES = ("storage", "export", "generation", "gateway")
MUSIC = "dgx_music.gateway.v1.MusicService"


@contextmanager
def serving(environment: dict[str, str], *service: str) -> Iterator[subprocess.Popen[str]]:
    """Runs `dgx-music serve` until the block ends. It is stopped with SIGTERM and has to exit with status 0."""
    with subprocess.Popen(
        [BIN / "dgx-music", "serve", *service], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            events = []
            for line in process.stderr:
                events.append(json.loads(line)["event"])
                if events[-1] == "serving":
                    break
            else:
                raise AssertionError(f"the server exited after the log events {events}")
            reader = threading.Thread(target=process.stderr.read)
            reader.start()
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_SECONDS) == 0
            reader.join()
        finally:
            process.kill()


@pytest.fixture(params=[pytest.param("one process", marks=pytest.mark.slow), "four processes"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Runs the servers. The value is the environment that they and their clients use."""
    ports = free_ports(len(SERVICES))
    addresses = {
        f"DGX_MUSIC_{name.upper()}_ADDRESS": f"127.0.0.1:{port}" for name, port in zip(SERVICES, ports, strict=True)
    }
    environment = settings(DGX_MUSIC_DATA_DIR=str(tmp_path), **addresses)
    with ExitStack() as stack:
        for service in [()] if request.param == "one process" else [(name,) for name in SERVICES]:
            stack.enter_context(serving(environment, *service))
        yield environment


def curl(environment: dict[str, str], method: str, **fields: object) -> list[dict[str, object]]:
    """Calls the method by server reflection and returns the response messages."""
    url = f"http://{environment['DGX_MUSIC_GATEWAY_ADDRESS']}/{method}"
    command = [BIN / "buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", json.dumps(fields), url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert result.returncode == 0, result.stderr
    decoder, messages, rest = json.JSONDecoder(), [], result.stdout.strip()
    while rest:
        message, end = decoder.raw_decode(rest)
        messages.append(message)
        rest = rest[end:].lstrip()
    return messages


def test_independent_client_generates_music_by_reflection(environment: dict[str, str]) -> None:
    address = f"http://{environment['DGX_MUSIC_GATEWAY_ADDRESS']}"
    listed = subprocess.run(
        [BIN / "buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--list-services", address],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert MUSIC in listed
    assert "dgx_music.storage.v1.StorageService" not in listed  # Only the gateway is public.

    [health] = curl(environment, "grpc.health.v1.Health/Check", service=MUSIC)
    assert health["status"] == "SERVING"

    [created] = curl(environment, f"{MUSIC}/CreateGeneration", prompt="techno at 130 BPM", durationSeconds=2, seed=7)
    generation = created["generation"]
    assert isinstance(generation, dict)
    changes = curl(environment, f"{MUSIC}/WatchGeneration", id=generation["id"])
    last = changes[-1]["generation"]
    assert isinstance(last, dict)
    assert last["state"] == "GENERATION_STATE_COMPLETED"
    *_, end = curl(environment, f"{MUSIC}/StreamAudio", generationId=generation["id"])
    assert end["end"]["totalFrames"] == "64000"  # type: ignore[index]

    result = subprocess.run(
        [BIN / "dgx-music", "generate", "techno at 130 BPM", "-d", "2", "--seed", "7", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    assert json.loads(result.stdout)["metadata"]["pcm_sha256"] == last["metadata"]["pcm_sha256"]
    assert len(curl(environment, f"{MUSIC}/ListGenerations")[0]["generations"]) == 2  # type: ignore[arg-type]


@pytest.mark.slow
def test_second_server_on_same_address_fails(tmp_path: Path) -> None:
    [port] = free_ports(1)
    environment = settings() | {"DGX_MUSIC_GATEWAY_ADDRESS": f"127.0.0.1:{port}"}
    with serving(environment | {"DGX_MUSIC_DATA_DIR": str(tmp_path / "one")}):
        result = subprocess.run(
            [BIN / "dgx-music", "serve"],
            env=environment | {"DGX_MUSIC_DATA_DIR": str(tmp_path / "other")},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    assert result.returncode == 1
    assert f"error: cannot listen on 127.0.0.1:{port}" in result.stderr.splitlines()[-1]


def test_command_on_data_dir_of_export_server_fails(tmp_path: Path) -> None:
    [port] = free_ports(1)
    environment = settings(DGX_MUSIC_EXPORT_ADDRESS=f"127.0.0.1:{port}", DGX_MUSIC_DATA_DIR=str(tmp_path))
    with serving(environment, "export"):
        result = subprocess.run(
            [BIN / "dgx-music", "history"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    assert result.returncode == 1
    assert "DGX_MUSIC_GATEWAY_ADDRESS" in result.stderr
