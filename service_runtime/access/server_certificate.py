"""The certificate and the key of a server, read again when their files change."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from dgx_music.errors import FailedPrecondition
from dgx_music.watched_file import read_versions
from service_runtime.observability.logging import get_logger
from service_runtime.optional_deps import install_extra_command
from service_runtime.settings import Settings

if TYPE_CHECKING:
    from cryptography import x509

log = get_logger(__name__)

CERTIFICATE, KEY, CLIENT_CA = "DGX_MUSIC_TLS_CERTIFICATE", "DGX_MUSIC_TLS_KEY", "DGX_MUSIC_TLS_CLIENT_CA"
RENEW_COMMAND = "dgx-music tls init --renew"


def build_server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Returns what a server shows on one of its TCP addresses; None if no certificate is configured.

    The files are read again at the first connection after they have changed; if they can't be used then, the previous
    ones stay in use, and the log says why. Raises FailedPrecondition, which names the setting, if they can't be used
    now.
    """
    if settings.tls_certificate is None:
        for name, value in ((KEY, settings.tls_key), (CLIENT_CA, settings.tls_client_ca)):
            if value is not None:
                raise _unusable(f"{name} is set, but {CERTIFICATE} is not; set both, or none")
        return None
    certificate = ServerCertificate(settings)
    return grpc.dynamic_ssl_server_credentials(
        certificate.current,
        certificate.renewed,  # type: ignore[arg-type]  # It may return None, for no other certificate.
        require_client_authentication=settings.tls_client_ca is not None,
    )


class ServerCertificate:
    """Reads and checks the files."""

    def __init__(self, settings: Settings) -> None:
        """Raises FailedPrecondition if a file can't be used."""
        self._settings = settings
        files = (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        self._files = [file.expanduser() for file in files if file is not None]
        self._versions = read_versions(self._files)
        self.current = self._read()

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the certificate if it has been renewed since the last time. gRPC asks at each new connection, on a
        thread of its own."""
        versions = read_versions(self._files)
        if versions == self._versions:
            return None
        self._versions = versions
        try:
            self.current = self._read()
        except FailedPrecondition as error:
            log.warning("certificate_not_renewed", error=error.message)
            return None
        log.info("certificate_renewed", file=str(self._files[0]))
        return self.current

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key = self._settings.tls_certificate, self._settings.tls_key
        if certificate is None or key is None:
            raise _unusable(f"{CERTIFICATE} is set, but {KEY} is not; set it to the file of the certificate's key")
        chain_pem, key_pem = _read_file(CERTIFICATE, certificate), _read_file(KEY, key)
        _check(f"{CERTIFICATE}={certificate}", chain_pem, f"{KEY}={key}", key_pem)
        ca_pem = None
        if (client_ca := self._settings.tls_client_ca) is not None:
            ca_pem = _read_file(CLIENT_CA, client_ca)
            load_certificates(f"{CLIENT_CA}={client_ca}", ca_pem)
        return grpc.ssl_server_certificate_configuration([(key_pem, chain_pem)], ca_pem)


def _check(certificate_name: str, chain_pem: bytes, key_name: str, key_pem: bytes) -> None:
    """Raises FailedPrecondition unless the certificate is valid now, and the key is its own."""
    certificate = load_certificates(certificate_name, chain_pem)[0]
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    now = datetime.now(UTC)
    if now >= certificate.not_valid_after_utc:
        expired = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        raise _unusable(f"{certificate_name}: the certificate expired at {expired}; renew it with `{RENEW_COMMAND}`")
    if now < certificate.not_valid_before_utc:
        begins = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise _unusable(f"{certificate_name}: the certificate is not valid before {begins}; is the clock right?")
    try:
        key = load_pem_private_key(key_pem, None)
    except TypeError as error:  # cryptography's error for a key that has a password.
        raise _unusable(f"{key_name}: the key is encrypted; give a key without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(f"{key_name}: the file is not a private key in PEM") from error
    if key.public_key() != certificate.public_key():
        raise _unusable(f"{key_name}: the key does not belong to the certificate of {certificate_name}")


def load_certificates(name: str, pem: bytes) -> list[x509.Certificate]:
    """Returns the certificates in a PEM file, of which the first is the owner's.

    Raises FailedPrecondition, which begins with `name`, if there are none, or the library that reads them is missing.
    """
    try:
        from cryptography import x509
    except ImportError as error:
        raise _unusable(f"{name}: TLS needs the library cryptography; run `{install_extra_command('tls')}`") from error
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise _unusable(f"{name}: the file is not a certificate in PEM") from error


def _read_file(name: str, file: Path) -> bytes:
    try:
        return file.expanduser().read_bytes()
    except OSError as error:
        raise _unusable(f"{name}={file}: the file can't be read: {error.strerror or error}") from error


def _unusable(problem: str) -> FailedPrecondition:
    return FailedPrecondition(problem, reason="TLS_UNUSABLE")
