"""Settings of the export service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from dgx_music.address import check_tcp_address
from dgx_music.limits import MAX_DURATION_SECONDS, MIN_CEILING_DBTP, MIN_DURATION_SECONDS, MIN_TARGET_LUFS
from service_runtime.settings import DEFAULT_PORTS, Settings


class ExportSettings(Settings):
    """The settings that all services share, and those for mastering, spooling, clips and signing."""

    export_advertised_address: str | None = None
    """Where gateways and workers reach this one of several export servers, `host:port`: it alone has the audio that it
    is receiving. With TLS, its certificate must be for that host. Unset if there is only one export server."""
    library_url: str = ""
    """Where the library is in object storage: `s3://bucket` or `s3://bucket/prefix`. If unset, the library is a folder
    of the data directory. Endpoint, region and credentials come from the standard variables and files
    (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SHARED_CREDENTIALS_FILE and others).
    Needs the extra `s3`."""
    library_cache_bytes: int = Field(default=10 << 30, ge=0)
    """Size of the copies of objects that the export service keeps on its own disk. What is being read is kept in any
    case."""
    library_public_endpoint: str | None = None
    """Endpoint of the object storage in URLs for downloads, e.g. https://s3.example.com, if clients reach it by another
    than AWS_ENDPOINT_URL."""
    target_lufs: float = Field(default=-16.0, ge=MIN_TARGET_LUFS, le=0)
    """Integrated loudness to which files are normalized."""
    ceiling_dbtp: float = Field(default=-1.0, ge=MIN_CEILING_DBTP, le=0)
    """True peak that no file exceeds."""
    spool_keep_seconds: float = Field(default=600.0, ge=0)
    """How long live audio (the samples as generated) remains available after the export has completed."""
    failed_spool_keep_seconds: float = Field(default=7 * 86_400.0, ge=0)
    """How long the samples of a generation whose export failed are kept, so that `retry` need not generate them again.
    A minute of music takes 15 MB (32 kHz, stereo)."""
    max_clip_bytes: int = Field(default=256 << 20, ge=1, le=2**31 - 2**24)
    """Size limit of an uploaded clip. At most 2 GiB less 16 MiB: larger sizes in WAV headers stand for "unknown"."""
    max_clip_seconds: float = Field(default=600.0, ge=MIN_DURATION_SECONDS, le=MAX_DURATION_SECONDS)
    """Duration limit of an uploaded clip."""
    group_readable: bool = False
    """Let the group read finished files, renders and clips (0640, folders 0750). If false, only the owner can (0600,
    0700). Only the owner can read the database, the spool and the sockets in any case. The umask does not matter."""
    c2pa_certificate: Path | None = None
    """PEM certificate chain with which files are signed (C2PA): the signer's certificate first, then the intermediate
    ones, without the root. Needs the extra `c2pa`."""
    c2pa_private_key: Path | None = None
    """Private key of the certificate, PEM without a password: ECDSA, RSA or Ed25519."""

    @field_validator("export_advertised_address")
    @classmethod
    def _check_advertised_address(cls, address: str | None) -> str | None:
        return address and check_tcp_address(address, DEFAULT_PORTS["export_address"])
