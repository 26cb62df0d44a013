"""Addresses of servers: `host:port`, `[IPv6 address]:port` or `unix:/path/to.sock`.

gRPC itself takes almost any text for an address and reports much later, or never, that it means nothing.
"""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from dataclasses import dataclass

DEFAULT_PORT = 50050
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"
"""Where `dgx-music serve` listens, and clients connect to."""
UNIX_PREFIX = "unix:"
LIST_PREFIXES = "ipv4:", "ipv6:", "dns:"
"""How gRPC's own names of one server, or of several, begin. They are for clients only."""
EXPORT_ADDRESS_KEY = "dgx-music-export-address"
"""Key of the initial metadata in which one of several export servers says where it is."""
MAX_PORT = 65535
MAX_SOCKET_PATH_BYTES = 107
"""Of a Unix socket on Linux."""

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.IGNORECASE)
_TLS_SCHEMES = ("https", "grpcs")
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_LIKELY_PORT_DIGITS = 4
"""The end of an IPv6 address without brackets is taken for a port if it has as many digits."""
_NOT_IN_SOCKET_PATH = re.compile(r"[,#?%\x00-\x1f\x7f]")
"""gRPC splits or decodes a path at these characters."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A port of a host. A server that listens on port 0 gets any free port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket."""

    path: str


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> TcpAddress | UnixAddress:
    """Parses an address. Raises ValueError, whose message says how to write it; there `default_port` is the port."""
    if not text.strip():
        raise ValueError(f"must not be blank; use HOST:PORT, e.g. 127.0.0.1:{default_port}")
    if text != text.strip():
        raise ValueError(f"must not begin or end with a space; use {text.strip()}")
    if text.startswith(UNIX_PREFIX):
        return _parse_unix(text.removeprefix(UNIX_PREFIX))
    if url := _URL.fullmatch(text):
        raise ValueError(_describe_url(url["scheme"].lower(), url["rest"], default_port))
    return _parse_tcp(text, default_port)


def check_tcp_address(text: str, default_port: int = DEFAULT_PORT) -> str:
    """Returns the address of one server that others can connect to, `host:port`. Raises ValueError otherwise."""
    with suppress(ValueError):
        address = parse_address(text, default_port)
        if isinstance(address, TcpAddress) and address.port and not _is_unspecified(address.host):
            return text
    example = f"export-1:{default_port}"
    raise ValueError(f"must be the HOST:PORT at which other machines connect to this server alone, e.g. {example}")


def check_address(text: str, default_port: int = DEFAULT_PORT) -> str:
    """Returns the address. Raises ValueError like `parse_address`, but accepts gRPC's names of several servers too."""
    if names_several(text):
        _check_servers(text, default_port)
    else:
        parse_address(text, default_port)
    return text


def names_several(text: str) -> bool:
    """Returns whether an address may stand for several servers: it is a list, or a name with any number of records."""
    return text.startswith(LIST_PREFIXES)


def first_of_list(text: str) -> str | None:
    """Returns the first server of a list, `host:port`; None if the address is not a list."""
    scheme, _, servers = text.partition(":")
    return servers.partition(",")[0] if f"{scheme}:" in LIST_PREFIXES and scheme != "dns" else None


def _check_servers(text: str, default_port: int) -> None:
    scheme, _, rest = text.partition(":")
    if scheme != "dns":
        for server in rest.split(","):
            example = f"ipv4:10.0.0.1:{default_port},10.0.0.2:{default_port}"
            try:
                address = parse_address(server, default_port)
            except ValueError as error:
                raise ValueError(f"must have IP addresses with ports, e.g. {example}; {server!r} {error}") from None
            if not isinstance(address, TcpAddress) or not _is_ip(address.host):
                by_name = f"; for the servers of a name use dns:///{server}" if isinstance(address, TcpAddress) else ""
                raise ValueError(f"must have IP addresses with ports, e.g. {example}{by_name}")
        return
    match = re.fullmatch("(//[^/]*/)?(?P<server>[^/]+)", rest)
    try:
        parse_address(match["server"] if match else "", default_port)
    except ValueError:
        raise ValueError(f"must be the name of servers with their port, e.g. dns:///storage:{default_port}") from None


def _parse_unix(path: str) -> UnixAddress:
    if not path.strip("/") or (path.startswith("//") and not path.startswith("///")):
        raise ValueError("must have the path of the socket; use unix:/path/to.sock")
    if match := _NOT_IN_SOCKET_PATH.search(path):
        raise ValueError(f"must not have the character {match[0]!r} in the path of the socket")
    size = len(path.encode())
    if size > MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"has a socket path of {size} bytes, but the system allows {MAX_SOCKET_PATH_BYTES}")
    return UnixAddress(path)


def _describe_url(scheme: str, rest: str, default_port: int) -> str:
    authority = rest.partition("/")[0].rpartition("@")[2] or "127.0.0.1"
    with suppress(ValueError):
        parse_address(f"{authority}:{default_port}")  # It has no port.
        authority = f"{authority}:{default_port}"
    problem = "must not be a URL"
    if scheme in _TLS_SCHEMES:
        problem += "; for TLS set DGX_MUSIC_TLS_CA"
    return f"{problem}; use {authority}"


def _parse_tcp(text: str, default_port: int) -> TcpAddress:
    if text.isdecimal():
        raise ValueError(f"must have a host before the port; use 127.0.0.1:{text}")
    if "/" in text:
        raise ValueError(f"must not have a path; use {text.partition('/')[0]}")
    host, colon, port = _split(text, default_port)
    if not host:
        raise ValueError(f"must have a host before the port; use 127.0.0.1:{port or default_port}")
    _check_host(host)
    if not colon or not port:
        raise ValueError(f"must have a port; use {text.rstrip(':')}:{default_port}")
    # Not int() alone, which takes signs, spaces and other scripts' digits.
    if not (port.isascii() and port.isdecimal()) or int(port) > MAX_PORT:
        raise ValueError(f"must have a port from 1 to {MAX_PORT}, not {port!r}; use e.g. port {default_port}")
    return TcpAddress(host.strip("[]"), int(port))


def _split(text: str, default_port: int) -> tuple[str, str, str]:
    """Splits at the colon before the port. A host in brackets keeps them."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"must be written [IPv6 address]:PORT; use e.g. [::1]:{default_port}")
        return f"{host}]", rest[:1], rest[1:]
    host, colon, port = text.rpartition(":")
    if ":" in host:
        has_port = _is_ipv6(host) and port.isdecimal() and len(port) >= _LIKELY_PORT_DIGITS
        right_form = f"[{host}]:{port}" if has_port or not _is_ipv6(text) else f"[{text}]:{default_port}"
        raise ValueError(f"must have brackets around an IPv6 address; use {right_form}")
    return (host, colon, port) if colon else (text, "", "")


def _check_host(host: str) -> None:
    if host.startswith("["):
        if not _is_ipv6(host[1:-1].partition("%")[0]):
            raise ValueError(f"must have an IPv6 address in the brackets, not {host[1:-1]!r}")
    elif not _HOST.fullmatch(host):
        raise ValueError(f"must begin with the name or the IP address of a host, not {host!r}")
    elif not re.search("[A-Za-z]", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"must begin with the name or the IP address of a host, not {host!r}") from None


def _is_unspecified(host: str) -> bool:
    """Returns whether it stands for all addresses of a machine: to listen at, not to connect to."""
    return _is_ip(host) and ipaddress.ip_address(host).is_unspecified


def _is_ip(host: str) -> bool:
    return _is_ipv6(host) or not re.search("[A-Za-z]", host)  # Other hosts of digits alone were refused before.


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
