"""What the metadata and the connection of a call say about the caller."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dgx_music.errors import Unauthenticated
from service_runtime.access.authentication import peer_host, read_bearer, read_client_name


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.3:51000", "10.0.0.3"),
        ("ipv6:%5B::1%5D:51000", "::1"),
        ("ipv6:[2001:db8::1]:51000", "2001:db8::1"),
        ("unix:", "unix"),
        ("unix:/tmp/s", "unix"),
    ],
)
def test_host_of_a_peer(peer: str, host: str) -> None:
    context: Any = SimpleNamespace(peer=lambda: peer)
    assert peer_host(context) == host


@pytest.mark.parametrize(("value", "token"), [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Bearer", "")])
def test_bearer(value: str, token: str) -> None:
    assert read_bearer([("authorization", value)]) == token


def test_no_bearer() -> None:
    assert read_bearer([("authorization-bin", b"Bearer abc")]) is None


@pytest.mark.parametrize("value", ["Basic abc", "abc", ""])
def test_another_scheme(value: str) -> None:
    with pytest.raises(Unauthenticated, match="Bearer TOKEN") as caught:
        read_bearer([("authorization", value)])
    assert "abc" not in caught.value.message


@pytest.mark.parametrize("values", [("Bearer abc", "Bearer x"), ("Bearer abc", "Bearer abc")])
def test_two_tokens_are_none(values: tuple[str, str]) -> None:
    with pytest.raises(Unauthenticated, match="once"):
        read_bearer([("authorization", value) for value in values])


def test_client_name() -> None:
    assert read_client_name([("x", "y"), ("dgx-music-client", "K%C3%BCche")]) == "Küche"
    assert read_client_name([("dgx-music-client", "a%0d%0a%1b[31mb%e2%80%ae")]) == "a[31mb"
    assert read_client_name([("dgx-music-client-bin", b"x")]) == ""
    assert read_client_name([]) == ""
