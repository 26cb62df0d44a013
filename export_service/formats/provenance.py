"""Signs files with Content Credentials (C2PA), which disclose that they are AI-generated."""

from __future__ import annotations

import io
import json
import os
import wave
from pathlib import Path
from typing import BinaryIO

from dgx_music.errors import FailedPrecondition
from export_service.formats.native_file import NativeFileObject
from export_service.tagging.tags import FileTags
from service_runtime.optional_deps import install_extra_command

CERTIFICATE_VARIABLE, PRIVATE_KEY_VARIABLE = "DGX_MUSIC_C2PA_CERTIFICATE", "DGX_MUSIC_C2PA_PRIVATE_KEY"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MEDIA_TYPES = {"WAV": "audio/wav", "FLAC": "audio/flac", "MP3": "audio/mpeg"}
"""By container, of those that can be signed; the C2PA library supports neither Ogg nor RF64."""
CURVE_ALGORITHMS = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
SAMPLE_GENERATOR = "dgx-music 0"
"""The generator named in the sample that is signed at startup."""


class Signer:
    """Signs files by the C2PA specification. It can be used from any thread."""

    def __init__(self, certificate: Path, private_key: Path) -> None:
        """Loads two PEM files: the certificate chain, with the signer's certificate first and without the root, and the
        private key.

        Raises FailedPrecondition if the c2pa extra is not installed or the files do not give a valid signature.
        """
        try:
            import c2pa
        except ImportError:
            raise FailedPrecondition(
                f"{CERTIFICATE_VARIABLE} requires the c2pa extra; install it with: {install_extra_command('c2pa')}",
                reason="C2PA_NOT_INSTALLED",
            ) from None
        self._c2pa = c2pa
        chain, key = _read(CERTIFICATE_VARIABLE, certificate), _read(PRIVATE_KEY_VARIABLE, private_key)
        try:
            self._signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(_signing_algorithm(key), chain, key, None))
            self._sign(_build_sample(), io.BytesIO(), "WAV", FileTags("", 1, SAMPLE_GENERATOR, SAMPLE_GENERATOR))
        except (c2pa.C2paError, ValueError, TypeError) as error:
            files = f"{CERTIFICATE_VARIABLE}={certificate} and {PRIVATE_KEY_VARIABLE}={private_key}"
            raise _credentials_error(f"{files} can't sign: {error}") from error

    def can_sign(self, container: str) -> bool:
        """Returns whether files of this container, by soundfile's name, can be signed."""
        return container in MEDIA_TYPES

    def sign(self, part: Path, container: str, tags: FileTags) -> None:
        """Replaces `part` with a signed copy; the samples do not change.

        Raises OSError, and FailedPrecondition if the certificate is no longer valid; `part` is then unchanged and no
        other file is left behind. While signing, c2pa uses up to three times the size of the file in memory.
        """
        signed = signed_part_path(part)
        try:
            with part.open("rb") as source, signed.open("x+b") as file:
                destination = NativeFileObject(file)
                try:
                    self._sign(source, destination, container, tags)
                except self._c2pa.C2paError as error:
                    if destination.os_error is None:
                        message = f"failed to sign the file: {error}; check {CERTIFICATE_VARIABLE} on the export server"
                        raise FailedPrecondition(message, reason="C2PA_SIGNING_FAILED") from error
                if destination.os_error is not None:
                    raise destination.os_error
            os.replace(signed, part)
        finally:
            signed.unlink(missing_ok=True)

    def _sign(self, source: BinaryIO, destination: BinaryIO | NativeFileObject, container: str, tags: FileTags) -> None:
        name, _, version = tags.generator.rpartition(" ")
        action = {
            "action": "c2pa.created",
            "digitalSourceType": SOURCE_TYPE,
            "softwareAgent": {"name": tags.model},
        }
        manifest = {
            "title": tags.title,
            "claim_generator_info": [{"name": name, "version": version}],
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
        }
        with self._c2pa.Builder(json.dumps(manifest)) as builder:
            builder.sign(self._signer, MEDIA_TYPES[container], source, destination)


def signed_part_path(part: Path) -> Path:
    """Returns where the signed copy is written: next to `part`, under a name that startup cleans up."""
    return part.with_suffix(".signed.part")


def create_signer(certificate: Path | None, private_key: Path | None) -> Signer | None:
    """Creates the signer that is configured; None if none is. Raises FailedPrecondition like `Signer`, and if only one
    of the two settings is given.
    """
    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        given, missing = CERTIFICATE_VARIABLE, PRIVATE_KEY_VARIABLE
        if certificate is None:
            given, missing = missing, given
        raise _credentials_error(f"{given} is set, but {missing} is not; set both or neither")
    return Signer(certificate, private_key)


def _read(variable: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _credentials_error(f"{variable}={path} can't be read: {error.strerror}") from error


def _signing_algorithm(key: bytes) -> bytes:
    """Returns COSE's name of the algorithm that the key signs with. Raises ValueError or TypeError if the key can't be
    read or is of another kind.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    match load_pem_private_key(key, password=None):
        case ec.EllipticCurvePrivateKey(curve=curve) if curve.name in CURVE_ALGORITHMS:
            return CURVE_ALGORITHMS[curve.name]
        case rsa.RSAPrivateKey():
            return b"ps256"
        case ed25519.Ed25519PrivateKey():
            return b"ed25519"
    raise ValueError("the key must be an ECDSA (P-256, P-384 or P-521), RSA or Ed25519 key")


def _build_sample() -> BinaryIO:
    """Returns a file to sign at startup, so that a wrong configuration shows then, not after the first generation."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(16))
    file.seek(0)
    return file


def _credentials_error(message: str) -> FailedPrecondition:
    return FailedPrecondition(message, reason="C2PA_CREDENTIALS_INVALID")
