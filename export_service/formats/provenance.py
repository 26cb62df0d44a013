"""How a file says that an AI made it: in its tags always, and signed (C2PA) where a certificate is configured."""

from __future__ import annotations

import io
import json
import os
import wave
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from dgx_music.errors import FailedPrecondition
from export_service.formats.native_file import Sink
from export_service.formats.tags import FileTags
from service_runtime.optional_deps import install_extra_command

CERTIFICATE, KEY = "DGX_MUSIC_C2PA_CERTIFICATE", "DGX_MUSIC_C2PA_PRIVATE_KEY"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MEDIA_TYPES = {"WAV": "audio/wav", "FLAC": "audio/flac", "MP3": "audio/mpeg"}
"""Of the containers that can be signed: the C2PA library takes neither Ogg nor RF64."""
CURVES = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
GENERATOR = "dgx-music 0"
"""Of the sample that is signed at the start."""


class Mark(Enum):
    """Where a file is marked."""

    INFO = "info"
    BEXT = "bext"
    ID3 = "id3"
    VORBIS_COMMENT = "vorbis_comment"
    C2PA = "c2pa"


class Signer:
    """Signs files by the C2PA specification. Lives on any thread."""

    def __init__(self, certificate: Path, private_key: Path) -> None:
        """`certificate`: PEM, the signer's first, then those that vouch for it, without the root; `private_key`: PEM.

        Raises FailedPrecondition where the extra is not installed, or no valid signature comes of them.
        """
        try:
            import c2pa
        except ImportError:
            raise _refused(
                f"{CERTIFICATE} needs the extra c2pa: {install_extra_command('c2pa')}", "C2PA_NOT_INSTALLED"
            ) from None
        self._c2pa = c2pa
        chain, key = _read(CERTIFICATE, certificate), _read(KEY, private_key)
        try:
            self._signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(_algorithm(key), chain, key, None))
            self._sign(_sample(), io.BytesIO(), "WAV", FileTags("", 1, GENERATOR, GENERATOR))
        except (c2pa.C2paError, ValueError, TypeError) as error:
            files = f"{CERTIFICATE}={certificate} and {KEY}={private_key}"
            raise _refused(f"{files} can't sign: {error}", "C2PA_CREDENTIALS_INVALID") from error

    def can_sign(self, container: str) -> bool:
        """`container`: soundfile's name of it."""
        return container in MEDIA_TYPES

    def sign(self, part: Path, container: str, tags: FileTags) -> None:
        """Puts a signed file in the place of `part`; its samples stay as they are.

        Raises OSError, and FailedPrecondition where the certificate is not valid any more; the part is then as it was,
        and nothing else is left. c2pa holds up to three times the file's size in memory meanwhile.
        """
        signed = signed_part(part)
        try:
            with part.open("rb") as source, signed.open("x+b") as file:
                sink = Sink(file)
                try:
                    self._sign(source, sink, container, tags)
                except self._c2pa.C2paError as error:
                    if sink.refusal is None:
                        why = f"the file can't be signed: {error}; see {CERTIFICATE} on the export server"
                        raise _refused(why, "C2PA_SIGNING_FAILED") from error
                if sink.refusal is not None:
                    raise sink.refusal
            os.replace(signed, part)
        finally:
            signed.unlink(missing_ok=True)

    def _sign(self, source: BinaryIO, destination: BinaryIO | Sink, container: str, tags: FileTags) -> None:
        name, _, version = tags.generator.rpartition(" ")
        made = {
            "action": "c2pa.created",
            "digitalSourceType": SOURCE_TYPE,
            "softwareAgent": {"name": tags.model},
        }
        manifest = {
            "title": tags.title,
            "claim_generator_info": [{"name": name, "version": version}],
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [made]}}],
        }
        with self._c2pa.Builder(json.dumps(manifest)) as builder:
            builder.sign(self._signer, MEDIA_TYPES[container], source, destination)


def signed_part(part: Path) -> Path:
    """Beside what is signed, with a name that is swept at the start."""
    return part.with_suffix(".signed.part")


def signer(certificate: Path | None, private_key: Path | None) -> Signer | None:
    """What the settings ask for; None where they ask for nothing. Raises FailedPrecondition as `Signer` does."""
    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        given, missing = (KEY, CERTIFICATE) if certificate is None else (CERTIFICATE, KEY)
        raise _refused(f"{given} is set, but {missing} is not: set both, or neither", "C2PA_CREDENTIALS_INVALID")
    return Signer(certificate, private_key)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refused(f"{name}={path} can't be read: {error.strerror}", "C2PA_CREDENTIALS_INVALID") from error


def _algorithm(key: bytes) -> bytes:
    """COSE's name of what the key signs with. Raises ValueError or TypeError where it is none that can be read."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    match load_pem_private_key(key, password=None):
        case ec.EllipticCurvePrivateKey(curve=curve) if curve.name in CURVES:
            return CURVES[curve.name]
        case rsa.RSAPrivateKey():
            return b"ps256"
        case ed25519.Ed25519PrivateKey():
            return b"ed25519"
    raise ValueError("the key must be of ECDSA (P-256, P-384, P-521), RSA or Ed25519")


def _sample() -> BinaryIO:
    """A file to try a signature on: what is wrong shows at the start, not at the end of the first generation."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(16))
    file.seek(0)
    return file


def _refused(why: str, reason: str) -> FailedPrecondition:
    return FailedPrecondition(why, reason=reason)
