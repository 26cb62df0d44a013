"""Which addresses only this machine can reach, and what the others need."""

from __future__ import annotations

import pytest

from dgx_music.errors import FailedPrecondition
from service_runtime.rpc.binding import is_local, require_local_or_allowed, requires_tokens
from service_runtime.settings import Settings

LOOPBACK, NETWORK = ("127.0.0.1:1", "unix:/tmp/s"), ("0.0.0.0:1", "10.0.0.1:1")
TLS = {"tls_certificate": "/x.pem"}
INSECURE = {"allow_insecure_listen": True}


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:/tmp/s", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("example.com:1", False),
    ],
)
def test_is_local(address: str, local: bool) -> None:
    assert is_local(address) is local


@pytest.mark.parametrize(
    ("addresses", "settings", "required"),
    [
        (LOOPBACK, {}, False),
        (LOOPBACK, TLS, False),
        (LOOPBACK, {"require_tokens": True}, True),
        (NETWORK, TLS, True),
        (NETWORK, INSECURE, False),
        (NETWORK, INSECURE | TLS, False),
        (NETWORK, INSECURE | {"require_tokens": True}, True),
    ],
)
def test_where_tokens_are_required(addresses: tuple[str, ...], settings: dict[str, object], required: bool) -> None:
    for address in addresses:
        require_local_or_allowed(address, Settings(**settings))
        assert requires_tokens(address, Settings(**settings)) is required


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "so it needs TLS; set DGX_MUSIC_TLS_CERTIFICATE and DGX_MUSIC_TLS_KEY (see `dgx-music tls init`)"),
        ({"require_tokens": True}, "so it needs TLS; "),
        (TLS | {"require_tokens": False}, "so it needs tokens; remove DGX_MUSIC_REQUIRE_TOKENS=false"),
    ],
)
def test_network_without_tls_or_tokens_is_refused(settings: dict[str, object], says: str) -> None:
    for address in NETWORK:
        with pytest.raises(FailedPrecondition) as caught:
            require_local_or_allowed(address, Settings(**settings))
        assert caught.value.message.startswith(f"{address} can be reached from the network, {says}")
        assert "DGX_MUSIC_ALLOW_INSECURE_LISTEN=true" in caught.value.message
