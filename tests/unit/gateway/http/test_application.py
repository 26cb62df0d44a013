"""The application without a gateway."""

from __future__ import annotations

import httpx2
import pytest
from starlette.requests import Request

from dgx_music.credentials import NO_CREDENTIALS
from gateway.http.application import build_application
from gateway.web.gateway_clients import GatewayClients
from gateway.web.gateway_health import HealthEndpoint
from service_runtime.rpc.web_hosts import WebHosts
from service_runtime.settings import Settings

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


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8080", None, 404),
        ("music.example", "https://music.example", 404),
        ("rebound.example", None, 421),
        ("rebound.example", "http://rebound.example", 421),
        ("localhost:8080", "http://page.example", 403),
        ("localhost:8080", "null", 403),
    ],
)
async def test_only_own_hosts_and_pages_are_answered(host: str, origin: str | None, status: int) -> None:
    assert (await get(GatewayClients(NOWHERE, False), "/none", host, origin=origin)).status_code == status
