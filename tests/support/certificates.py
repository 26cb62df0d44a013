"""Gives signing certificates of several key types, each with its own root certificate."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEYS: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@dataclass(frozen=True)
class Credentials:
    """A signer's certificate and private key, and the root to verify its signatures with."""

    certificate: Path
    private_key: Path
    root: str
    """PEM."""


def make_credentials(folder: Path, kind: str = "p256", days_ago: float = 1, name: str = "signer") -> Credentials:
    """Writes a certificate and its private key, issued by a new root `days_ago` days ago and valid for 30 days."""
    root_key, key = KEYS["p256"](), KEYS[kind]()
    root = build_certificate("Root", "Root", root_key, root_key, days_ago)
    leaf = build_certificate("Signer", "Root", key, root_key, days_ago)
    certificate_path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    certificate_path.write_bytes(leaf.public_bytes(Encoding.PEM))
    key_path.write_bytes(pem(key))
    return Credentials(certificate_path, key_path, root.public_bytes(Encoding.PEM).decode())


def pem(key: Any, encryption: Any = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def build_certificate(subject: str, issuer: str, key: Any, issuer_key: Any, days_ago: float) -> x509.Certificate:
    is_root = subject == issuer
    valid_from = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days_ago)
    usages = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(build_name(subject))
        .issuer_name(build_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_from)
        .not_valid_after(valid_from + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(is_root, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, decipher_only=False, **usages
            ),
            critical=True,
        )
    )
    if not is_root:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def build_name(common_name: str) -> x509.Name:
    names = {NameOID.COMMON_NAME: common_name, NameOID.ORGANIZATION_NAME: "Test"}
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in names.items()])
