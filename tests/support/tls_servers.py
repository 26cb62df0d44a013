"""Gives certificates for TLS, each from an authority of its own making, and gRPC servers that use them."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and the files that it has written."""

    folder: Path
    name: str
    key: Any
    certificate: x509.Certificate

    @property
    def file(self) -> str:
        return str(self.folder / f"{self.name}.pem")

    def issue(self, name: str, hosts: Sequence[str] = ("127.0.0.1",), *, days: float = 30) -> tuple[str, str]:
        """Writes a certificate that is valid until `days` from now, and its key; returns their paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.IPAddress(ipaddress.ip_address(host)) for host in hosts]
        return write(self.folder / name, key, build(name, self.name, key, self.key, days, names))


def make_authority(folder: Path, name: str = "ca") -> Authority:
    """Writes the authority's certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = build(name, name, key, key, 30, None)
    write(folder / name, key, certificate)
    return Authority(folder, name, key, certificate)


def build(
    subject: str, issuer: str, key: Any, issuer_key: Any, days: float, names: list[x509.IPAddress] | None
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=90))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(names is None, None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def write(stem: Path, key: Any, certificate: x509.Certificate) -> tuple[str, str]:
    paths = stem.with_suffix(".pem"), stem.with_suffix(".key")
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(paths[0]), str(paths[1])


@asynccontextmanager
async def tls_server(certificate: tuple[str, str], client_ca: str | None = None) -> AsyncIterator[str]:
    """Runs a gRPC server without any service, and yields its address."""
    chain, key = (Path(file).read_bytes() for file in certificate)
    server = grpc.aio.server()
    credentials = grpc.ssl_server_credentials(
        [(key, chain)], None if client_ca is None else Path(client_ca).read_bytes(), client_ca is not None
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
