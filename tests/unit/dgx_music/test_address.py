"""Addresses that are accepted, and what the error for an invalid one says to write instead."""

from __future__ import annotations

import re

import pytest

from dgx_music.address import TcpAddress, UnixAddress, check_address, check_tcp_address, first_of_list, parse_address
from dgx_music.channel import connect


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:50050", TcpAddress("127.0.0.1", 50050)),
        ("localhost:1", TcpAddress("localhost", 1)),
        ("my_host.example-1.org:65535", TcpAddress("my_host.example-1.org", 65535)),
        ("0.0.0.0:0", TcpAddress("0.0.0.0", 0)),
        ("[::1]:50050", TcpAddress("::1", 50050)),
        ("[fe80::1%eth0]:50050", TcpAddress("fe80::1%eth0", 50050)),
        ("unix:/tmp/a b.sock", UnixAddress("/tmp/a b.sock")),
        ("unix:///tmp/s", UnixAddress("///tmp/s")),
        ("unix:run/s", UnixAddress("run/s")),
    ],
)
def test_valid_address_is_parsed(text: str, address: TcpAddress | UnixAddress) -> None:
    assert parse_address(text) == address
    assert check_address(text) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must not be blank; use HOST:PORT, e.g. 127.0.0.1:50052"),
        (" ", "must not be blank; use HOST:PORT, e.g. 127.0.0.1:50052"),
        ("localhost:1 ", "must not begin or end with a space; use localhost:1"),
        ("http://127.0.0.1:50050", "must not be a URL; use 127.0.0.1:50050"),
        ("http://host", "must not be a URL; use host:50052"),
        ("http://", "must not be a URL; use 127.0.0.1:50052"),
        ("HTTPS://u:p@host:1/path", "must not be a URL; for TLS set DGX_MUSIC_TLS_CA; use host:1"),
        ("grpc://127.0.0.1:1/", "must not be a URL; use 127.0.0.1:1"),
        ("127.0.0.1", "must have a port; use 127.0.0.1:50052"),
        ("localhost:", "must have a port; use localhost:50052"),
        (":50050", "must have a host before the port; use 127.0.0.1:50050"),
        ("50050", "must have a host before the port; use 127.0.0.1:50050"),
        (":", "must have a host before the port; use 127.0.0.1:50052"),
        ("127.0.0.1:1/", "must not have a path; use 127.0.0.1:1"),
        ("127.0.0.1:70000", "must have a port from 1 to 65535, not '70000'; use e.g. port 50052"),
        ("127.0.0.1:abc", "must have a port from 1 to 65535, not 'abc'; use e.g. port 50052"),
        ("127.0.0.1:-1", "must have a port from 1 to 65535, not '-1'; use e.g. port 50052"),
        ("127.0.0.1:\u0663", "must have a port from 1 to 65535, not '\u0663'; use e.g. port 50052"),
        ("::1", "must have brackets around an IPv6 address; use [::1]:50052"),
        ("::1:50050", "must have brackets around an IPv6 address; use [::1]:50050"),
        ("2001:db8::1", "must have brackets around an IPv6 address; use [2001:db8::1]:50052"),
        ("2001:db8::1:8080", "must have brackets around an IPv6 address; use [2001:db8::1]:8080"),
        ("[::1]", "must have a port; use [::1]:50052"),
        ("[::1", "must be written [IPv6 address]:PORT; use e.g. [::1]:50052"),
        ("[::1]50050", "must be written [IPv6 address]:PORT; use e.g. [::1]:50052"),
        ("[abc]:1", "must have an IPv6 address in the brackets, not 'abc'"),
        ("300.1.1.1:1", "must begin with the name or the IP address of a host, not '300.1.1.1'"),
        ("a b:1", "must begin with the name or the IP address of a host, not 'a b'"),
        ("user@host:1", "must begin with the name or the IP address of a host, not 'user@host'"),
        ("unix:", "must have the path of the socket; use unix:/path/to.sock"),
        ("unix://host/s", "must have the path of the socket; use unix:/path/to.sock"),
        ("unix:/tmp/a,b", "must not have the character ',' in the path of the socket"),
        ("unix:/" + "x" * 107, "has a socket path of 108 bytes, but the system allows 107"),
        (
            "ipv4:10.0.0.1:50052,10.0.0.2",
            "must have IP addresses with ports, e.g. ipv4:10.0.0.1:50052,10.0.0.2:50052; "
            "'10.0.0.2' must have a port; use 10.0.0.2:50052",
        ),
        (
            "ipv4:localhost:1",
            "must have IP addresses with ports, e.g. ipv4:10.0.0.1:50052,10.0.0.2:50052; "
            "for the servers of a name use dns:///localhost:1",
        ),
        (
            "ipv4:10.0.0.1:1,unix:/s",
            "must have IP addresses with ports, e.g. ipv4:10.0.0.1:50052,10.0.0.2:50052",
        ),
        ("dns:///storage", "must be the name of servers with their port, e.g. dns:///storage:50052"),
        ("dns://", "must be the name of servers with their port, e.g. dns:///storage:50052"),
    ],
)
def test_invalid_address_says_how_to_write_it(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        check_address(text, default_port=50052)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    "text",
    [
        "ipv4:10.0.0.1:50052,10.0.0.2:50052",
        "ipv6:[::1]:1",
        "dns:///storage:50052",
        "dns:storage:50052",
        "dns://127.0.0.1:53/storage:50052",
    ],
)
def test_grpc_names_of_servers_are_accepted_from_clients(text: str) -> None:
    assert check_address(text) == text


def test_channel_to_invalid_address_is_not_opened() -> None:
    with pytest.raises(ValueError, match="must not be a URL"):
        connect("http://127.0.0.1:50050")


@pytest.mark.parametrize(
    "text",
    [
        *("unix:/tmp/a.sock", "ipv4:10.0.0.1:1,10.0.0.2:1", "dns:///export:50053", "http://export-1", ":50053"),
        *("0.0.0.0:50053", "[::]:50053", "export-1:0", "export-1", ""),
    ],
)
def test_address_for_others_is_that_of_one_server(text: str) -> None:
    with pytest.raises(ValueError, match=r"machines connect to this server alone, .* export-1:50053$"):
        check_tcp_address(text, 50053)
    assert check_tcp_address("export-1.export:50053") == "export-1.export:50053"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("ipv4:10.0.0.1:1,10.0.0.2:2", "10.0.0.1:1"),
        ("ipv6:[::1]:1", "[::1]:1"),
        ("dns:///a:1", None),
        ("10.0.0.1:1", None),
    ],
)
def test_first_of_a_list(text: str, first: str | None) -> None:
    assert first_of_list(text) == first
