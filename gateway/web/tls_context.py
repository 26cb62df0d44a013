"""TLS for the HTTP endpoints, with the certificate and the key of the gRPC servers."""

from __future__ import annotations

import ssl

from service_runtime.access.server_certificate import ServerCertificate
from service_runtime.settings import Settings

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, as gRPC has them: with forward secrecy and authenticated encryption. TLS 1.3 has no others."""


def build_tls_context(settings: Settings) -> ssl.SSLContext:
    """Returns a context that shows the configured certificate, and from the first connection on after it was renewed,
    the new one. Raises FailedPrecondition, which names the setting, if it can't be used."""
    certificate = ServerCertificate(settings)
    current = _load(settings)

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        nonlocal current
        if certificate.renewed() is not None:
            current = _load(settings)
        connection.context = current

    context = _load(settings)
    context.sni_callback = choose
    return context


def _load(settings: Settings) -> ssl.SSLContext:
    assert settings.tls_certificate is not None
    assert settings.tls_key is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # Whatever the Python and the system allow.
    context.set_ciphers(CIPHERS)
    context.load_cert_chain(settings.tls_certificate.expanduser(), settings.tls_key.expanduser())
    if settings.tls_client_ca is not None:
        context.load_verify_locations(settings.tls_client_ca.expanduser())
        context.verify_mode = ssl.CERT_REQUIRED
    return context
