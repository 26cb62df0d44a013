"""The servers as they are run, and `buf curl` as the client that nobody here wrote."""

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
SECONDS = 120.0
SERVICES = ("storage", "export", "generation", "gateway")
MUSIC = "dgx_music.gateway.v1.MusicService"


@contextmanager
def serving(environment: dict[str, str], *service: str) -> Iterator[subprocess.Popen[str]]:
    """A server, once it listens; it is stopped as an init system would, and has to end well."""
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
                raise AssertionError(f"it ended after {events}")
            reader = threading.Thread(target=process.stderr.read)
            reader.start()
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
            reader.join()
        finally:
            process.kill()


@pytest.fixture(params=["one process", "four processes"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where the servers are, for them and their clients."""
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
    """The messages that a call by reflection answers."""
    url = f"http://{environment['DGX_MUSIC_GATEWAY_ADDRESS']}/{method}"
    command = [BIN / "buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", json.dumps(fields), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    decoder, messages, rest = json.JSONDecoder(), [], done.stdout.strip()
    while rest:
        message, end = decoder.raw_decode(rest)
        messages.append(message)
        rest = rest[end:].lstrip()
    return messages


def test_a_stranger_s_client_finds_its_way_by_reflection(environment: dict[str, str]) -> None:
    address = f"http://{environment['DGX_MUSIC_GATEWAY_ADDRESS']}"
    listed = subprocess.run(
        [BIN / "buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--list-services", address],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert MUSIC in listed
    assert "dgx_music.storage.v1.StorageService" not in listed  # The gateway alone faces the outside.

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

    done = subprocess.run(
        [BIN / "dgx-music", "generate", "techno at 130 BPM", "-d", "2", "--seed", "7", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert json.loads(done.stdout)["metadata"]["pcm_sha256"] == last["metadata"]["pcm_sha256"]
    assert len(curl(environment, f"{MUSIC}/ListGenerations")[0]["generations"]) == 2  # type: ignore[arg-type]


def test_a_second_server_on_an_address_is_refused(tmp_path: Path) -> None:
    [port] = free_ports(1)
    environment = settings() | {"DGX_MUSIC_GATEWAY_ADDRESS": f"127.0.0.1:{port}"}
    with serving(environment | {"DGX_MUSIC_DATA_DIR": str(tmp_path / "one")}):
        done = subprocess.run(
            [BIN / "dgx-music", "serve"],
            env=environment | {"DGX_MUSIC_DATA_DIR": str(tmp_path / "other")},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 1
    assert f"error: cannot listen on 127.0.0.1:{port}" in done.stderr.splitlines()[-1]


def test_export_served_alone_keeps_commands_from_its_files(tmp_path: Path) -> None:
    [port] = free_ports(1)
    environment = settings(DGX_MUSIC_EXPORT_ADDRESS=f"127.0.0.1:{port}", DGX_MUSIC_DATA_DIR=str(tmp_path))
    with serving(environment, "export"):
        done = subprocess.run(
            [BIN / "dgx-music", "list"], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    assert done.returncode == 1
    assert "DGX_MUSIC_GATEWAY_ADDRESS" in done.stderr
