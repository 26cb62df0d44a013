"""A private certificate authority, and the certificates that it issues: one for servers, one for clients."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.cli.session.command_errors import CommandError
from gateway.file_replacement import replacing
from service_runtime.access.authentication import SERVICE_URI
from service_runtime.file_modes import PRIVATE

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
BACKDATED = timedelta(hours=1)
"""How long before their issue certificates become valid, for machines whose clock is slow."""
MODE_OF_CERTIFICATES = 0o644
CLIENT_URI = "dgx-music:client"

OTHER_USAGES = dict.fromkeys(
    ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
    False,
)


class CertificateAuthority:
    """Issues certificates. Its key stays in the folder, and no server needs it."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate, self._key = certificate, key

    @classmethod
    def create(cls, name: str) -> CertificateAuthority:
        """Makes a new authority, whose certificate is its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        own_name, until = _name(name), datetime.now(UTC) + timedelta(days=AUTHORITY_DAYS)
        usage = x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **OTHER_USAGES)
        builder = (
            _builder(own_name, own_name, key, until)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> CertificateAuthority:
        """Reads an authority from its files. Raises OSError, or ValueError if they don't contain one."""
        loaded = load_pem_private_key(key.read_bytes(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key} is not a key that `dgx-music tls init` has made")
        return cls(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded)

    def certificate_pem(self) -> bytes:
        """Returns the certificate by which others recognize what this authority has issued."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self) -> bytes:
        """Returns the private key."""
        return _key_pem(self._key)

    def has_expired(self) -> bool:
        """Returns whether certificates that it issues would be valid for no one."""
        return datetime.now(UTC) >= self.certificate.not_valid_after_utc

    def issue_server(self, hosts: Iterable[str]) -> tuple[bytes, bytes]:
        """Returns a certificate for servers at these names and IP addresses, and its key, in PEM. By the certificate a
        server also proves to be a service when it calls another."""
        names = [*map(_general_name, hosts), x509.UniformResourceIdentifier(SERVICE_URI.decode())]
        return self._issue(
            "DGX Music server", names, [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        )

    def issue_client(self) -> tuple[bytes, bytes]:
        """Returns a certificate for clients and its key, in PEM."""
        names = [x509.UniformResourceIdentifier(CLIENT_URI)]
        return self._issue("DGX Music client", names, [ExtendedKeyUsageOID.CLIENT_AUTH])

    def _issue(
        self, subject: str, names: Sequence[x509.GeneralName], usages: Sequence[x509.ObjectIdentifier]
    ) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        until = min(datetime.now(UTC) + timedelta(days=CERTIFICATE_DAYS), self.certificate.not_valid_after_utc)
        issuer = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        usage = x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **OTHER_USAGES)
        builder = (
            _builder(_name(subject), self.certificate.subject, key, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM), _key_pem(key)


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Returns the names and IP addresses of the servers that a certificate is for."""
    with suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [
            *names.get_values_for_type(x509.DNSName),
            *map(str, names.get_values_for_type(x509.IPAddress)),
        ]
    return []


def identities_of(certificate: x509.Certificate) -> list[str]:
    """Returns the URIs by which a certificate identifies its bearer, e.g. `dgx-music:service`."""
    with suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)
    return []


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Writes PEM files, keys readable by their owner only: all of them, each in the place of its predecessor, or none.

    Raises CommandError if one can't be written.
    """
    path = Path()
    try:
        with ExitStack() as stack:
            for path, content in contents.items():
                mode = PRIVATE.file if path.suffix == ".key" else MODE_OF_CERTIFICATES
                part = stack.enter_context(replacing(path))
                with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                    file.write(content)
    except OSError as error:
        raise CommandError(f"failed to write {path}: {error.strerror or error}") from error


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
