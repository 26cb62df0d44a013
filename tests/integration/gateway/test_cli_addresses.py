"""An address at which there is no gateway is described in one sentence, without gRPC's own text."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dgx_music.client import connect
from dgx_music.storage.v1.storage_pb2 import ListGenerationsRequest
from gateway.cli.session.command_errors import TRY_AGAIN, format_error
from gateway.config import GatewaySettings
from gateway.rpc.server import build
from service_runtime.rpc.server import serve_services
from tests.support.command_line import InProcessShell, Shell
from tests.support.processes import free_ports
from tests.support.tls_files import make_tls_files

WAY_OUT = "set DGX_MUSIC_GATEWAY_ADDRESS to the address of `dgx-music serve`, or unset DGX_MUSIC_GATEWAY_ADDRESS"


class SilentHandler(BaseHTTPRequestHandler):
    """Rejects every request, and does not log that on standard error."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), SilentHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def grpc_server() -> Iterator[str]:
    """A gRPC server without any service."""
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[str]:
    """A gRPC server whose certificate comes from the authority in `ca.pem`."""
    folder = make_tls_files(tmp_path).folder
    certificate, key = ((folder / name).read_bytes() for name in ("server.pem", "server.key"))
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.mark.slow
def test_tls_problem_is_reported_with_its_own_way_out(tls_server: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path / "data")  # A process, whose standard error has no lines of gRPC's server.
    line = shell.error("history", status=TRY_AGAIN, DGX_MUSIC_GATEWAY_ADDRESS=tls_server)
    assert line.startswith(f"error: {tls_server} requires TLS; set DGX_MUSIC_TLS_CA to the file of its certificate")
    assert "DGX_MUSIC_GATEWAY_ADDRESS" not in line
    other = str(make_tls_files(tmp_path / "other").ca)
    line = shell.error("history", status=TRY_AGAIN, DGX_MUSIC_GATEWAY_ADDRESS=tls_server, DGX_MUSIC_TLS_CA=other)
    assert f"comes from an authority that DGX_MUSIC_TLS_CA={other} does not contain" in line
    settings = {"DGX_MUSIC_GATEWAY_ADDRESS": tls_server, "DGX_MUSIC_TLS_CA": str(tmp_path / "ca.pem")}
    assert "is a gRPC server, but not dgx_music" in shell.error("history", status=1, **settings)


def test_port_without_a_server_is_reported(shell: InProcessShell) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    line = shell.error("history", status=TRY_AGAIN, DGX_MUSIC_GATEWAY_ADDRESS=address)
    assert line == f"error: no server listens at {address}; {WAY_OUT}"


def test_port_of_another_program_is_reported(shell: InProcessShell, web_server: str) -> None:
    line = shell.error("history", status=TRY_AGAIN, DGX_MUSIC_GATEWAY_ADDRESS=web_server)
    assert line == f"error: {web_server} belongs to another program, a web server (HTTP/1); {WAY_OUT}"


def test_grpc_server_of_another_service_is_reported(shell: InProcessShell, grpc_server: str) -> None:
    line = shell.error("history", status=1, DGX_MUSIC_GATEWAY_ADDRESS=grpc_server)
    assert line == (
        f"error: the server at {grpc_server} is a gRPC server, but not dgx_music.gateway.v1.MusicService; {WAY_OUT}"
    )


@pytest.mark.parametrize("command", [("history",), ("serve",), ("generate", "x")])
def test_invalid_address_names_variable_and_right_form(shell: InProcessShell, command: tuple[str, ...]) -> None:
    line = shell.error(*command, status=2, DGX_MUSIC_GATEWAY_ADDRESS="http://127.0.0.1:50050")
    assert line == ("error: DGX_MUSIC_GATEWAY_ADDRESS=http://127.0.0.1:50050: must not be a URL; use 127.0.0.1:50050")
    assert not shell.data_dir.exists()


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DGX_MUSIC_GENERATION_ADDRESS", "host", "must have a port; use host:50051"),
        ("DGX_MUSIC_STORAGE_ADDRESS", "host", "must have a port; use host:50052"),
        ("DGX_MUSIC_EXPORT_ADDRESS", ":1", "must have a host before the port; use 127.0.0.1:1"),
        ("DGX_MUSIC_LISTEN", "0.0.0.0:70000", "must have a port from 1 to 65535, not '70000'; use e.g. port 50050"),
    ],
)
def test_each_address_setting_is_checked(shell: InProcessShell, variable: str, value: str, says: str) -> None:
    assert shell.error("history", status=2, **{variable: value}) == f"error: {variable}={value}: {says}"


@pytest.mark.slow
async def test_gateway_says_what_is_at_the_address_of_a_service(web_server: str) -> None:
    settings = GatewaySettings(storage_address=web_server)
    async with serve_services([build(settings)], ["127.0.0.1:0"], settings) as [address], connect(address) as music:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await music.ListGenerations(ListGenerationsRequest(), timeout=60)
    assert format_error(caught.value) == (
        f"dgx_music.storage.v1.StorageService does not answer: {web_server} belongs to another program, a web server "
        "(HTTP/1); start `dgx-music serve storage` there, or set the gateway's DGX_MUSIC_STORAGE_ADDRESS",
        TRY_AGAIN,
    )


def test_server_that_cannot_listen_says_why(tmp_path: Path, web_server: str) -> None:
    shell = Shell(tmp_path / "data")
    done = shell.run("serve", status=1, DGX_MUSIC_GATEWAY_ADDRESS=web_server)
    port = web_server.rpartition(":")[2]
    assert done.stderr.splitlines()[-1] == (
        f"error: cannot listen on {web_server}: port {port} is in use by another program; stop it, or set "
        "DGX_MUSIC_GATEWAY_ADDRESS to another address"
    )
    assert not [
        line for line in done.stderr.splitlines()[:-1] if not line.startswith("{")
    ]  # The log, and no other line.
