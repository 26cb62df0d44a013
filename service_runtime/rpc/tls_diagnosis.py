"""Finds out why a TLS connection to a server fails, by a handshake of its own: gRPC does not say it."""

from __future__ import annotations

import ssl
from pathlib import Path

from dgx_music.address import TcpAddress
from dgx_music.credentials import SYSTEM_CA, Credentials

ALPN = ["h2"]
"""What gRPC's servers agree on in the handshake; web servers may, too (RFC 9113, section 3.2)."""

_EXPIRED, _NOT_YET_VALID = 10, 9
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 64})
"""Codes of OpenSSL: X509_V_ERR_… in x509_vfy.h."""


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """Returns the context that verifies servers as a channel with these credentials does. Raises OSError, of which
    ssl.SSLError is one, if a file can't be used."""
    context = ssl.create_default_context(cafile=None if credentials.ca in (None, SYSTEM_CA) else _path(credentials.ca))
    context.set_alpn_protocols(ALPN)
    if credentials.certificate is not None:
        context.load_cert_chain(_path(credentials.certificate), credentials.key and _path(credentials.key))
    return context


def unverified_context() -> ssl.SSLContext:
    """Returns a context that accepts any server, to which nothing is sent."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(ALPN)
    return context


def explain_unusable_files(credentials: Credentials, error: OSError) -> str:
    """Returns in words why `client_context` has failed."""
    names = (("CA", credentials.ca), ("CERTIFICATE", credentials.certificate), ("KEY", credentials.key))
    given = ", ".join(f"DGX_MUSIC_TLS_{name}={value}" for name, value in names if value)
    reason = "not PEM, or they do not belong together" if isinstance(error, ssl.SSLError) else error.strerror
    return f"the files for TLS can't be used ({given}): {reason}"


def explain_rejected_server(address: TcpAddress, name: str, ca: str | None, error: ssl.SSLCertVerificationError) -> str:
    """Returns in words why the certificate of the server at the address `name` is not trusted, and the way out."""
    certificate = f"the certificate of the server at {name}"
    match error.verify_code:
        case code if code == _EXPIRED:
            return f"{certificate} has expired; renew it on the server"
        case code if code == _NOT_YET_VALID:
            return f"{certificate} is not valid yet; check the clocks of both machines"
        case code if code in _UNKNOWN_ISSUER:
            return (
                f"{certificate} comes from an authority that DGX_MUSIC_TLS_CA={ca} does not contain; ask the server's "
                "administrator for the authority's file (ca.pem)"
            )
        case code if code in _OTHER_NAME:
            return f"{certificate} is not for the name {address.host}; use one that it is for, or add this one to it"
    return f"{certificate} is not accepted: {error.verify_message}"


def explain_alert(name: str, credentials: Credentials) -> str:
    """Returns in words why the server at the address `name` has ended the handshake with an alert."""
    if credentials.certificate is None:
        return (
            f"the server at {name} accepts only clients with a certificate; set DGX_MUSIC_TLS_CERTIFICATE and "
            "DGX_MUSIC_TLS_KEY to yours"
        )
    return (
        f"the server at {name} does not accept the certificate DGX_MUSIC_TLS_CERTIFICATE={credentials.certificate}; it "
        "must come from the authority of DGX_MUSIC_TLS_CLIENT_CA on the server, and must not have expired"
    )


def _path(file: str | None) -> str:
    return str(Path(file or "").expanduser())
