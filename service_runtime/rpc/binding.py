"""Binds a server to an address, and checks which addresses are allowed."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio

from dgx_music.address import UNIX_PREFIX, UnixAddress, names_several, parse_address
from dgx_music.errors import FailedPrecondition
from service_runtime.file_modes import private_umask
from service_runtime.settings import Settings


def is_local(address: str) -> bool:
    """Returns whether only this machine can reach the address: a Unix socket or a loopback host."""
    if address.startswith(UNIX_PREFIX):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def require_address(address: str, variable: str = "DGX_MUSIC_LISTEN") -> None:
    """Raises FailedPrecondition if the address is not one that a server can listen on. `variable` is the setting that
    has it, or that takes precedence."""
    if names_several(address):
        raise _cannot_listen(address, f"it names servers to connect to; set {variable} to HOST:PORT")
    try:
        parse_address(address)
    except ValueError as error:
        raise _cannot_listen(address, f"it {error}") from error


def require_local_or_allowed(address: str, settings: Settings) -> None:
    """Raises FailedPrecondition if the address is open to the network without TLS or without tokens and the settings do
    not allow that, or if it is not one that a server can listen on."""
    require_address(address)
    if is_local(address) or settings.allow_insecure_listen:
        return
    if settings.tls_certificate is None:
        problem = "it needs TLS; set DGX_MUSIC_TLS_CERTIFICATE and DGX_MUSIC_TLS_KEY (see `dgx-music tls init`)"
    elif not requires_tokens(address, settings):
        problem = "it needs tokens; remove DGX_MUSIC_REQUIRE_TOKENS=false"
    else:
        return
    raise FailedPrecondition(
        f"{address} can be reached from the network, so {problem}, bind to 127.0.0.1 or a Unix socket, "
        "or set DGX_MUSIC_ALLOW_INSECURE_LISTEN=true if the network is trusted",
        reason="INSECURE_LISTEN",
        metadata={"address": address},
    )


def require_local_metrics_or_allowed(settings: Settings) -> None:
    """Raises FailedPrecondition if metrics would be open to the network and the settings do not allow that."""
    if settings.metrics_port is None or is_local(f"{settings.metrics_host}:0") or settings.allow_insecure_listen:
        return
    raise FailedPrecondition(
        f"metrics on {settings.metrics_host} could be read from the network, as they have neither TLS nor tokens; "
        "set DGX_MUSIC_METRICS_HOST to 127.0.0.1, or DGX_MUSIC_ALLOW_INSECURE_LISTEN=true if the network is trusted",
        reason="INSECURE_LISTEN",
        metadata={"address": f"{settings.metrics_host}:{settings.metrics_port}"},
    )


def requires_tokens(address: str, settings: Settings) -> bool:
    """Returns whether callers at the address must show a token."""
    if settings.require_tokens is not None:
        return settings.require_tokens
    return not is_local(address) and not settings.allow_insecure_listen


def bind(
    server: grpc.aio.Server,
    address: str,
    variable: str = "DGX_MUSIC_GATEWAY_ADDRESS",
    credentials: grpc.ServerCredentials | None = None,
) -> str:
    """Binds the server and returns the address with its actual port. `variable` is the setting that has the address.
    With `credentials`, it uses TLS.

    Raises FailedPrecondition if that is not possible, with the reason.
    """
    if address.startswith(UNIX_PREFIX) and _accepts_connections(address.removeprefix(UNIX_PREFIX)):
        # gRPC would unlink the other server's socket and replace it.
        raise _cannot_listen(address, f"another server listens on it; stop it, or set {variable} to another address")
    try:
        with private_umask():  # Of the socket's file: no one else may connect, not even for a moment.
            if credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise _cannot_listen(address, f"{_find_problem(address)}set {variable} to another address") from error
    if address.startswith(UNIX_PREFIX):
        return address
    return f"{address.rpartition(':')[0]}:{port}"


def setting_of(address: str, settings: Settings) -> str:
    """Returns the environment variable that an address comes from."""
    names = ("listen", "gateway_address", "generation_address", "storage_address", "export_address")
    name = next((name for name in names if getattr(settings, name) == address), "gateway_address")
    return f"DGX_MUSIC_{name.upper()}"


def _accepts_connections(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError:
            return False
        return True


def _find_problem(address: str) -> str:
    """Returns why an address can't be listened on, by trying it without gRPC, which does not tell. The sentence goes on
    with a setting to change."""
    parsed = parse_address(address)
    if isinstance(parsed, UnixAddress):
        folder = Path(parsed.path).parent
        return f"the folder {folder} does not exist; create it, or " if not folder.is_dir() else "no access to it; "
    try:
        family, _, _, _, target = socket.getaddrinfo(parsed.host, parsed.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            probe.listen()
    except socket.gaierror:
        return f"there is no host {parsed.host}; "
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                return f"port {parsed.port} is in use by another program; stop it, or "
            case errno.EADDRNOTAVAIL:
                return f"{parsed.host} is not an address of this machine; "
            case errno.EACCES:
                return f"only the administrator may use port {parsed.port}; "
        return f"{error.strerror or error}; "
    return "it was in use a moment ago; try again, or "


def _cannot_listen(address: str, problem: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"cannot listen on {address}: {problem}", reason="ADDRESS_TAKEN", metadata={"address": address}
    )
