"""The application without a gateway."""

from __future__ import annotations

import httpx2
import pytest
from starlette.requests import Request

from dgx_music.credentials import NO_CREDENTIALS
from gateway.http.application import build_application
from gateway.http.endpoints import HealthEndpoint
from gateway.http.gateway_clients import GatewayClients

NOWHERE = "127.0.0.1:1"


async def get(
    callers: GatewayClients, path: str, host: str = "localhost:8080", origin: str | None = None
) -> httpx2.Response:
    hosts = WebHosts(Settings(allowed_hosts="music.example"))
    application = build_application(callers, HealthEndpoint(NOWHERE, NO_CREDENTIALS), hosts=hosts)
    transport = httpx2.ASGITransport(app=application)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get(path, headers={"host": host} | ({} if origin is None else {"origin": origin}))


async def test_unexpected_error_is_answered_with_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(GatewayClients):
        def client_for(self, request: Request) -> None:  # type: ignore[override]
            raise RuntimeError("a secret")

    response = await get(Broken(NOWHERE, False), "/v1/models")
    assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
    assert "error_id" in response.text
    assert "secret" not in response.text


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "127.0.0.1:8080", "[::1]:8080"])
async def test_loopback_hosts_are_answered(host: str) -> None:
    assert (await get(GatewayClients(NOWHERE, False), "/none", host)).status_code == 404


@pytest.mark.parametrize("host", ["", "rebound.example", "rebound.example:8080", "10.0.0.1:8080", "localhost.example"])
async def test_other_hosts_are_refused_on_loopback(host: str) -> None:
    assert (await get(GatewayClients(NOWHERE, False), "/none", host)).status_code == 421
    assert (await get(GatewayClients(NOWHERE, False), "/none", host, is_local_only=False)).status_code == 404
