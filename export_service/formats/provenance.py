"""Signs files with Content Credentials (C2PA), which disclose that they are AI-generated."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from dgx_music.errors import FailedPrecondition
from export_service.formats.manifest_slot import EMBEDDABLE, layout_slot
from export_service.formats.native_file import NativeFileObject
from export_service.tagging import mp4
from export_service.tagging.disclosure import AiDisclosure
from export_service.tagging.tags import FileTags
from service_runtime.optional_deps import install_extra_command

CERTIFICATE_VARIABLE, PRIVATE_KEY_VARIABLE = "DGX_MUSIC_C2PA_CERTIFICATE", "DGX_MUSIC_C2PA_PRIVATE_KEY"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CURVE_ALGORITHMS = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}

MANIFEST_TYPE, M4A_TYPE = "application/c2pa", "audio/mp4"
MANIFEST_EXTENSION = ".c2pa"
MAX_BUFFERED_BYTES = 64 << 20
"""The largest M4A file that is signed by the C2PA library, which uses twice the size of the file in memory."""
DRAFT_BYTES = 4096
"""Assumed size of a manifest before it is known. Like the actual size, it takes three bytes within the manifest."""
UNKNOWN_GENERATOR = "dgx-music unknown"
"""Name and version."""
SAMPLE_TAGS = FileTags("", 1, "dgx-music 0", "dgx-music 0")
SAMPLE_SHA256 = hashlib.sha256(b"sample").digest()


class Signer:
    """Signs files by the C2PA specification. It can be used from any thread.

    A manifest states the SHA-256 of its file, which is computed here, block by block. The C2PA library embeds manifests
    by itself, but holds up to three times the size of the file in memory, and supports neither RF64 nor Ogg.
    """

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
            # A wrong configuration shows at startup, not after the first generation.
            self._build_manifest(SAMPLE_TAGS, SAMPLE_SHA256)
        except (c2pa.C2paError, ValueError, TypeError) as error:
            files = f"{CERTIFICATE_VARIABLE}={certificate} and {PRIVATE_KEY_VARIABLE}={private_key}"
            raise _credentials_error(f"{files} can't sign: {error}") from error

    def sign(self, part: Path, container: str, tags: FileTags) -> AiDisclosure:
        """Signs `part`, a file of this container by soundfile's name, or "M4A". The samples do not change.

        Replaces it with a copy that contains the manifest, or if the container can't hold one, writes the manifest to
        `staged_manifest_path(part)`. Returns which of the two. Memory use does not grow with the file, except for an
        M4A file of up to 64 MiB; a larger one gets its manifest in a file of its own.

        Raises OSError, and FailedPrecondition if the certificate is no longer valid; `part` is then unchanged and no
        other file is left behind.
        """
        signed = signed_part_path(part)
        try:
            with part.open("rb") as source:
                if container in EMBEDDABLE:
                    self._embed(source, signed, container, tags)
                elif container == "M4A" and part.stat().st_size <= MAX_BUFFERED_BYTES:
                    self._embed_in_m4a(source, signed, tags)
                else:
                    if container == "M4A":
                        mp4.discard_manifest(part)
                    manifest = self._build_manifest(tags, hashlib.file_digest(source, "sha256").digest())
                    signed.write_bytes(manifest)
                    os.replace(signed, staged_manifest_path(part))
                    return AiDisclosure.C2PA_SIDECAR
            os.replace(signed, part)
        except self._c2pa.C2paError as error:
            message = f"failed to sign the file: {error}; check {CERTIFICATE_VARIABLE} on the export server"
            raise FailedPrecondition(message, reason="C2PA_SIGNING_FAILED") from error
        finally:
            signed.unlink(missing_ok=True)
        return AiDisclosure.C2PA

    def _embed(self, source: BinaryIO, signed: Path, container: str, tags: FileTags) -> None:
        draft = self._build_manifest(tags, SAMPLE_SHA256, layout_slot(source, container, DRAFT_BYTES).slot)
        layout = layout_slot(source, container, len(draft))
        with signed.open("xb") as destination:
            sha256 = layout.write(source, destination)
            manifest = self._build_manifest(tags, sha256, layout.slot)
            if len(manifest) != len(draft):
                raise self._c2pa.C2paError(f"the manifest has {len(manifest)} bytes, but the draft {len(draft)}")
            destination.seek(sum(layout.slot) - len(manifest))
            destination.write(manifest)

    def _embed_in_m4a(self, source: BinaryIO, signed: Path, tags: FileTags) -> None:
        with signed.open("x+b") as file:
            destination = NativeFileObject(file)
            try:
                self._sign(tags, M4A_TYPE, source, destination)
            except self._c2pa.C2paError:
                if destination.os_error is None:
                    raise
            if destination.os_error is not None:
                raise destination.os_error

    def _build_manifest(self, tags: FileTags, sha256: bytes, slot: tuple[int, int] | None = None) -> bytes:
        """Returns a signed manifest for a file with this SHA-256, which does not cover the slot (position and size)
        that the manifest itself has in the file.
        """
        data_hash = {"name": "jumbf manifest", "alg": "sha256", "hash": list(sha256), "pad": []}
        if slot is not None:
            data_hash["exclusions"] = [dict(zip(("start", "length"), slot, strict=True))]
        return self._sign(
            tags, MANIFEST_TYPE, io.BytesIO(), io.BytesIO(), {"label": "c2pa.hash.data", "data": data_hash}
        )

    def _sign(
        self, tags: FileTags, media_type: str, source: Any, destination: Any, *assertions: dict[str, Any]
    ) -> bytes:
        # A file whose tags another program removed does not say what generated it.
        name, _, version = (tags.generator or UNKNOWN_GENERATOR).rpartition(" ")
        action = {
            "action": "c2pa.created",
            "digitalSourceType": SOURCE_TYPE,
            "softwareAgent": {"name": tags.model},
        }
        manifest = {
            "title": tags.title,
            "claim_generator_info": [{"name": name, "version": version}],
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}, *assertions],
        }
        with self._c2pa.Builder(json.dumps(manifest)) as builder:
            signed: bytes = builder.sign(self._signer, media_type, source, destination)
        return signed


def signed_part_path(part: Path) -> Path:
    """Returns where the signed copy is written: next to `part`, under a name that startup cleans up."""
    return part.with_suffix(".signed.part")


def staged_manifest_path(part: Path) -> Path:
    """Returns where the manifest of `part` is if it is not within the file; startup cleans it up too."""
    return part.with_suffix(f"{MANIFEST_EXTENSION}{part.suffix}")


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


def _credentials_error(message: str) -> FailedPrecondition:
    return FailedPrecondition(message, reason="C2PA_CREDENTIALS_INVALID")
