"""A finished file's figures, as they are told and kept."""

from __future__ import annotations

from dataclasses import dataclass

from export_service.dsp.measurement import LoudnessMeasurement
from export_service.dsp.normalization import Normalization
from export_service.formats.provenance import AiDisclosure
from service_runtime.audio.output_options import FileFormat


@dataclass(frozen=True)
class Finished:
    """A file that was written, and its figures."""

    format: FileFormat
    sample_rate_hz: int
    channels: int
    frames: int
    file_size_bytes: int
    file_sha256: str
    source: LoudnessMeasurement
    """Of the samples at the file's sample rate and channel count, before the level was set."""
    file: LoudnessMeasurement
    """Of the file; a lossy one's as decoded."""
    normalization: Normalization
    marks: tuple[AiDisclosure, ...]
    """Where it says that an AI made it."""
