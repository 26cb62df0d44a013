"""What Prometheus and traces show of exports and renders: their phases, and the files that they make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from export_service.library.mastered_file import MasteredFile
from service_runtime.observability.metrics import Counter, Histogram
from service_runtime.observability.tracing import Tracer

PHASE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
GAIN_BUCKETS = (-18.0, -12.0, -9.0, -6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0, 9.0, 12.0, 18.0)
REDUCTION_BUCKETS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)

PHASE_SECONDS = Histogram(
    "dgx_music_export_phase_seconds",
    "Duration of the phases of an export: upload (as long as the generation takes), measure, limit, write, sign, "
    "sync and commit.",
    ("phase",),
    PHASE_BUCKETS,
)
FILES = Counter("dgx_music_export_files_total", "Files that exports and renders have made.", ("format",))
FILE_BYTES = Counter("dgx_music_export_file_bytes_total", "Size of the files that exports and renders have made.")
AUDIO_SECONDS = Counter(
    "dgx_music_export_audio_seconds_total", "Length of the files that exports and renders have made."
)
GAIN = Histogram(
    "dgx_music_export_gain_decibels", "Gain by which the loudness of a file was normalized.", buckets=GAIN_BUCKETS
)
REDUCTION = Histogram(
    "dgx_music_export_limiter_reduction_decibels",
    "Largest reduction by the true-peak limiter in a file; 0 if it was not needed.",
    buckets=REDUCTION_BUCKETS,
)

TRACER = Tracer("export")


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Records how long a phase of the current export takes."""
    with TRACER.span(f"export {name}"), PHASE_SECONDS.time(name):
        yield


def count_file(file: MasteredFile) -> None:
    """Counts a file that is in the library now."""
    FILES.inc(file.format.value)
    FILE_BYTES.inc(by=file.file_size_bytes)
    AUDIO_SECONDS.inc(by=file.frames / file.sample_rate_hz)
    GAIN.observe(file.normalization.gain_db)
    REDUCTION.observe(file.normalization.largest_reduction_db)
