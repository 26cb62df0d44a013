"""Binding a server to an address, and which addresses it may have."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress

import grpc.aio

from dgx_music.errors import FailedPrecondition
from service_runtime.settings import Settings

UNIX_PREFIX = "unix:"


def is_local(address: str) -> bool:
    """Whether only this machine can reach the address: a Unix socket or a loopback host."""
    if address.startswith(UNIX_PREFIX):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def require_local_or_allowed(address: str, settings: Settings) -> None:
    if not is_local(address) and not settings.allow_insecure_listen:
        raise FailedPrecondition(
            f"{address} can be reached from the network, and this server has no TLS: "
            "bind to 127.0.0.1 or a Unix socket, "
            "or set DGX_MUSIC_ALLOW_INSECURE_LISTEN=true where the network itself is trusted",
            reason="INSECURE_LISTEN",
            metadata={"address": address},
        )


def bind(server: grpc.aio.Server, address: str) -> str:
    if address.startswith(UNIX_PREFIX) and _answers(address.removeprefix(UNIX_PREFIX)):
        raise _address_taken(address)  # gRPC would unlink the other server's socket and take its place.
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise _address_taken(address) from error
    if address.startswith(UNIX_PREFIX):
        return address
    host, _, asked = address.rpartition(":")
    if asked not in ("0", str(port)):
        raise _address_taken(address)  # gRPC takes 65537 for 1.
    return f"{host}:{port}"


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _address_taken(address: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"can't listen on {address}: another server has it, or it is no address of this machine; "
        "stop that server, or choose another address by DGX_MUSIC_<SERVICE>_ADDRESS",
        reason="ADDRESS_TAKEN",
        metadata={"address": address},
    )
