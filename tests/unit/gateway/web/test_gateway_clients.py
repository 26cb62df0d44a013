"""Whose token the gateway is called with."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from dgx_music.errors import Unauthenticated
from gateway.web import gateway_clients
from gateway.web.gateway_clients import GatewayClients

ADDRESS = "127.0.0.1:50050"
TOKEN = f"dgxm_abcdefgh_{'x' * 43}"


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "client": ("192.0.2.7", 50_000)})


async def metadata(requires_tokens: bool = False, **headers: str) -> dict[str, str]:
    """Returns what the gateway is shown for a request with these headers."""
    async with GatewayClients(ADDRESS, requires_tokens).client_for(request(**headers)) as client:
        return dict(client._connection.config.credentials.metadata())


@pytest.fixture(autouse=True)
def own_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGX_MUSIC_TOKEN", "of this server")


@pytest.mark.parametrize(
    "header", [{"authorization": f"Bearer {TOKEN}"}, {"authorization": f"bearer  {TOKEN}"}, {"xi_api_key": TOKEN}]
)
@pytest.mark.parametrize("requires_tokens", [True, False])
async def test_token_of_the_caller_is_passed_on(header: dict[str, str], requires_tokens: bool) -> None:
    assert (await metadata(requires_tokens, **header))["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer sk-local"}, {"authorization": f"Basic {TOKEN}"}])
async def test_without_a_token_the_caller_is_refused_or_a_guest_of_this_server(header: dict[str, str]) -> None:
    assert (await metadata(**header))["authorization"] == "Bearer of this server"
    with pytest.raises(Unauthenticated):
        await metadata(True, **header)


@pytest.mark.parametrize("key", ["dgxm_x", f"{TOKEN}\xfc"])
async def test_what_is_like_no_token_is_refused_here(key: str) -> None:
    with pytest.raises(Unauthenticated, match="is not a token of DGX Music"):
        await metadata(authorization=f"Bearer {key}")


async def test_caller_is_named_by_itself_or_by_its_host() -> None:
    assert (await metadata())["dgx-music-client"] == "http 192.0.2.7"
    assert (await metadata(dgx_music_client="studio"))["dgx-music-client"] == "studio"


async def test_connections_are_kept_for_the_next_request_of_the_same_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_clients, "MAX_KEPT", 2)
    kept = GatewayClients(ADDRESS, requires_tokens=False)

    async def stub(name: str) -> object:
        async with kept.client_for(request(dgx_music_client=name)) as client:
            return client.music

    first = await stub("a")
    assert await stub("a") is first
    assert await stub("b") is not first
    async with kept.client_for(request(dgx_music_client="a")) as used:
        await stub("c")
        await stub("d")
        assert used.music is first  # In use, it is not closed for others.
    assert await stub("d") is await stub("d")
    await kept.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        _ = used.music
