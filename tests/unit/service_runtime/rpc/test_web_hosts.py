"""Which Host and Origin headers are accepted."""

from __future__ import annotations

import socket

import pytest

from service_runtime.rpc.web_hosts import WebHosts
from service_runtime.settings import Settings

HOSTS = WebHosts(Settings(allowed_hosts="Music.example., studio"))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1:8080",
        "[::1]:8080",
        "10.0.0.1",
        "music.example:1",
        "studio.",
        f"{socket.gethostname()}:8080",
    ],
)
def test_addresses_and_own_names_are_accepted(host: str) -> None:
    assert HOSTS.accept_host(host)
    assert HOSTS.accept_origin(f"https://{host}")


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":80",
        "rebound.example",
        "rebound.example:8080",
        "localhost.example",
        "127.0.0.1.example",
        "[::1",
        "[x]:1",
        "127.0.0.1@rebound.example",
        "2130706433",
        ".",
    ],
)
def test_all_others_are_not(host: str) -> None:
    assert not HOSTS.accept_host(host)
    assert not HOSTS.accept_origin(f"http://{host}")


def test_page_without_a_host_of_its_own_is_not_accepted_but_a_program_is() -> None:
    for origin in ("null", "", "file://", "localhost"):
        assert not HOSTS.accept_origin(origin)
    assert HOSTS.accept_origin(None)
