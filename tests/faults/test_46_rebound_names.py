"""Web pages whose host name was made to lead to this machine (DNS rebinding): neither the HTTP endpoints nor the
metrics answer to them, and gRPC can't be spoken by a page at all (test_18_http2_abuse.py)."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.http.config import HttpSettings
from gateway.http.server import serve_http
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.processes import free_ports
from tests.support.scripted_service import ScriptedService

REFUSED, ANSWERED = 421, 200
HOSTS = {
    "localhost": ANSWERED,
    "127.0.0.1:1": ANSWERED,
    "[::1]": ANSWERED,
    socket.gethostname(): ANSWERED,
    "music.example:8080": ANSWERED,
    "rebound.example": REFUSED,
    "rebound.example:80": REFUSED,
    "localhost.rebound.example": REFUSED,
    "127.0.0.1.rebound.example": REFUSED,
}


@pytest.fixture
async def ports(tmp_path: Path) -> AsyncIterator[dict[str, int]]:
    """Of a server's metrics and of the HTTP endpoints."""
    (metrics_port,) = free_ports(1)
    shared = {"data_dir": tmp_path, "grace_seconds": 0.1, "allowed_hosts": "music.example, other.example"}
    settings = Settings.model_validate({**shared, "metrics_port": metrics_port})
    async with (
        serve_services([ScriptedService()], ["127.0.0.1:0"], settings) as bound,
        serve_http(bound[0], HttpSettings.model_validate({**shared, "http_listen": "127.0.0.1:0"})) as url,
    ):
        yield {"metrics": metrics_port, "http": int(url.rpartition(":")[2])}


def status_of(port: int, path: str, headers: dict[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest("GET", path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


async def test_metrics_and_http_answer_to_own_names_only(ports: dict[str, int]) -> None:
    for host, expected in HOSTS.items():
        for name, path in (("metrics", "/metrics"), ("http", "/none")):
            status, text = await asyncio.to_thread(status_of, ports[name], path, {"Host": host})
            assert (status == REFUSED) is (expected == REFUSED), (name, host)
            assert ("DGX_MUSIC_ALLOWED_HOSTS" in text) is (expected == REFUSED)


async def test_page_of_another_site_is_refused_also_under_an_own_name(ports: dict[str, int]) -> None:
    for origin, expected in (
        ("http://localhost:3000", 404),
        ("https://music.example", 404),
        ("http://page.example", 403),
        ("null", 403),
    ):
        headers = {"Host": "localhost", "Origin": origin}
        assert (await asyncio.to_thread(status_of, ports["http"], "/none", headers))[0] == expected, origin


async def test_where_a_token_is_needed_any_name_will_do(tmp_path: Path) -> None:
    """A page has none; and the certificate says which names are the server's."""
    settings = HttpSettings.model_validate(
        {"data_dir": tmp_path, "http_listen": "127.0.0.1:0", "require_tokens": True, "grace_seconds": 0.1}
    )
    async with serve_http("127.0.0.1:1", settings) as url:
        port = int(url.rpartition(":")[2])
        status, _ = await asyncio.to_thread(status_of, port, "/v1/models", {"Host": "proxy.example"})
        assert status == 401
