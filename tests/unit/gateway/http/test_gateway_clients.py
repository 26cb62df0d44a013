"""Whose token the gateway is called with."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from dgx_music.errors import Unauthenticated
from gateway.http.gateway_clients import GatewayClients

ADDRESS = "127.0.0.1:50050"
TOKEN = f"dgxm_abcdefgh_{'x' * 43}"


def metadata(requires_tokens: bool = False, **headers: str) -> dict[str, str]:
    """Returns what the gateway is shown for a request with these headers."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "headers": raw, "client": ("192.0.2.7", 50_000)})
    client = GatewayClients(ADDRESS, requires_tokens).client_for(request)
    return dict(client._connection.config.credentials.metadata())


@pytest.fixture(autouse=True)
def own_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGX_MUSIC_TOKEN", "of this server")


@pytest.mark.parametrize(
    "header", [{"authorization": f"Bearer {TOKEN}"}, {"authorization": f"bearer  {TOKEN}"}, {"xi_api_key": TOKEN}]
)
@pytest.mark.parametrize("requires_tokens", [True, False])
def test_token_of_the_caller_is_passed_on(header: dict[str, str], requires_tokens: bool) -> None:
    assert metadata(requires_tokens, **header)["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer sk-local"}, {"authorization": f"Basic {TOKEN}"}])
def test_without_a_token_the_caller_is_refused_or_a_guest_of_this_server(header: dict[str, str]) -> None:
    assert metadata(**header)["authorization"] == "Bearer of this server"
    with pytest.raises(Unauthenticated):
        metadata(True, **header)


def test_caller_is_named_by_itself_or_by_its_host() -> None:
    assert metadata()["dgx-music-client"] == "http 192.0.2.7"
    assert metadata(dgx_music_client="studio")["dgx-music-client"] == "studio"
