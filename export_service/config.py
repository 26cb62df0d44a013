"""Settings of the export service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from service_runtime.settings import Settings


class ExportSettings(Settings):
    """What every service needs, and how files are finished."""

    target_lufs: float = Field(default=-16.0, ge=-70, le=0)
    """Integrated loudness that files are brought to."""
    ceiling_dbtp: float = Field(default=-1.0, ge=-20, le=0)
    """True peak that no file passes."""
    spool_keep_seconds: float = Field(default=600.0, ge=0)
    """How long after completion the samples as generated can still be listened to."""
    max_clip_bytes: int = Field(default=256 << 20, ge=1, le=2**31 - 2**16)
    """Largest file that is taken in as a clip. WAV's own bound is what programs write for "not known"."""
    max_clip_seconds: float = Field(default=600.0, ge=0.1, le=3600)
    """Longest clip."""
    c2pa_certificate: Path | None = None
    """Sign every file that can be (C2PA) with this PEM chain: the signer's certificate first, then those that vouch
    for it, without the root. Needs the extra `c2pa`, and while it signs three times the file's size in memory."""
    c2pa_private_key: Path | None = None
    """The certificate's key, PEM without a password: ECDSA, RSA or Ed25519."""
