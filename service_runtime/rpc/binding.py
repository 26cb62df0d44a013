"""Binds a server to an address, and checks which addresses are allowed."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress

import grpc.aio

from dgx_music.errors import FailedPrecondition
from service_runtime.file_modes import private_umask
from service_runtime.settings import Settings

UNIX_PREFIX = "unix:"


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


def require_local_or_allowed(address: str, settings: Settings) -> None:
    """Raises FailedPrecondition if the address is open to the network and the settings do not allow that."""
    if not is_local(address) and not settings.allow_insecure_listen:
        raise FailedPrecondition(
            f"{address} can be reached from the network, and this server has no TLS; "
            "bind to 127.0.0.1 or a Unix socket, "
            "or set DGX_MUSIC_ALLOW_INSECURE_LISTEN=true if the network is trusted",
            reason="INSECURE_LISTEN",
            metadata={"address": address},
        )


def bind(server: grpc.aio.Server, address: str) -> str:
    """Binds the server and returns the address with its actual port. Raises FailedPrecondition if it is taken."""
    if address.startswith(UNIX_PREFIX) and _accepts_connections(address.removeprefix(UNIX_PREFIX)):
        raise _address_taken(address)  # gRPC would unlink the other server's socket and replace it.
    try:
        with private_umask():  # Of the socket's file: no one else may connect, not even for a moment.
            port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise _address_taken(address) from error
    if address.startswith(UNIX_PREFIX):
        return address
    host, _, requested_port = address.rpartition(":")
    if requested_port not in ("0", str(port)):
        raise _address_taken(address)  # gRPC binds port 65537 as port 1.
    return f"{host}:{port}"


def _accepts_connections(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError:
            return False
        return True


def _address_taken(address: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"cannot listen on {address}: another server uses it, or it is not an address of this machine; "
        "stop that server or set DGX_MUSIC_<SERVICE>_ADDRESS to another address",
        reason="ADDRESS_TAKEN",
        metadata={"address": address},
    )
