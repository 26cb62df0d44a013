"""Converts between messages and domain types for the calls that list, verify and clean up the library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2
from export_service.library.audio_library import SignedUrl
from export_service.library.cleanup import CleanupPolicy, CleanupReason, CleanupResult
from export_service.library.inventory import AudioInfo, FileKind, LibraryFile
from export_service.library.library_statistics import FileTotals, LibraryStatistics
from export_service.library.verification import FileCondition, VerificationResult
from export_service.rpc.converters import to_generation_id
from service_runtime.rpc.output_converters import FORMAT_NAMES

MAX_EXPECTED_FILES = 1000
MAX_URL_SECONDS = 7 * 86_400
"""S3's limit for a signed URL."""
DEFAULT_URL_SECONDS = 3600
MAX_AGE = timedelta(days=365_000)

RelativePath = Callable[[Path], str]
"""Returns a path relative to the data directory."""

KINDS = {
    export_pb2.FILE_KIND_OUTPUT: FileKind.OUTPUT,
    export_pb2.FILE_KIND_CLIP: FileKind.CLIP,
    export_pb2.FILE_KIND_RENDER: FileKind.RENDER,
}
KIND_VALUES = {kind: value for value, kind in KINDS.items()}
CONDITION_VALUES = {
    FileCondition.INTACT: export_pb2.FILE_CONDITION_INTACT,
    FileCondition.CHANGED: export_pb2.FILE_CONDITION_CHANGED,
    FileCondition.MISSING: export_pb2.FILE_CONDITION_MISSING,
    FileCondition.UNREADABLE: export_pb2.FILE_CONDITION_UNREADABLE,
    FileCondition.PRESENT: export_pb2.FILE_CONDITION_PRESENT,
}
REASON_VALUES = {
    CleanupReason.AGE: export_pb2.CLEANUP_REASON_AGE,
    CleanupReason.SIZE: export_pb2.CLEANUP_REASON_SIZE,
    CleanupReason.ORPHAN: export_pb2.CLEANUP_REASON_ORPHAN,
}


def to_kinds(kinds: Iterable[export_pb2.FileKind]) -> list[FileKind]:
    converted = []
    for index, kind in enumerate(kinds):
        if kind not in KINDS:
            raise InvalidArgument(f"kinds[{index}]", f"{kind} is not a value of this enum that the server supports")
        converted.append(KINDS[kind])
    return converted


def to_expected(files: Iterable[export_pb2.ExpectedFile]) -> list[tuple[str, str]]:
    """Returns the generations' ids and the expected SHA-256 of their files."""
    expected = [
        (to_generation_id(file.generation_id, f"files[{index}].generation_id"), file.file_sha256)
        for index, file in enumerate(files)
    ]
    if not 1 <= len(expected) <= MAX_EXPECTED_FILES:
        raise InvalidArgument("files", f"must have 1 to {MAX_EXPECTED_FILES} entries, not {len(expected)}")
    return expected


def to_cleanup_policy(request: export_pb2.CleanupRequest) -> CleanupPolicy:
    older_than = None
    if request.HasField("older_than_seconds"):
        seconds = request.older_than_seconds
        if not (math.isfinite(seconds) and 0 <= seconds <= MAX_AGE.total_seconds()):
            raise InvalidArgument("older_than_seconds", f"must be 0 to {MAX_AGE.total_seconds():.0f}, not {seconds}")
        older_than = timedelta(seconds=seconds)
    keep_bytes = request.keep_newest_bytes if request.HasField("keep_newest_bytes") else None
    if keep_bytes is not None and keep_bytes < 0:
        raise InvalidArgument("keep_newest_bytes", f"must be 0 or more, not {keep_bytes}")
    return CleanupPolicy(to_kinds(request.kinds), older_than, keep_bytes, request.orphans)


def to_expiry(seconds: int) -> timedelta:
    if not 0 <= seconds <= MAX_URL_SECONDS:
        raise InvalidArgument("expires_seconds", f"must be 0 to {MAX_URL_SECONDS} (7 days), not {seconds}")
    return timedelta(seconds=seconds or DEFAULT_URL_SECONDS)


def from_signed_url(signed: SignedUrl, expires: timedelta) -> export_pb2.GetDownloadUrlResponse:
    return export_pb2.GetDownloadUrlResponse(
        url=signed.url,
        expires_at=_timestamp(datetime.now(UTC) + expires),
        file_name=signed.file_name,
        file_size_bytes=signed.file_size_bytes,
    )


def from_file(file: LibraryFile, relative_path: RelativePath, info: AudioInfo | None = None) -> export_pb2.LibraryFile:
    return export_pb2.LibraryFile(
        kind=KIND_VALUES[file.kind],
        generation_id=file.generation_id,
        render_id=file.render_id,
        file_path=relative_path(file.path),
        file_size_bytes=file.size_bytes,
        modified_at=_timestamp(file.modified_at),
        format=None if info is None else FORMAT_NAMES[info.format],
        frames=0 if info is None else info.frames,
        sample_rate_hz=0 if info is None else info.sample_rate_hz,
        channels=0 if info is None else info.channels,
    )


def from_statistics(statistics: LibraryStatistics) -> export_pb2.GetLibraryStatisticsResponse:
    return export_pb2.GetLibraryStatisticsResponse(
        total_files=statistics.total.files,
        total_bytes=statistics.total.bytes,
        kinds=[_file_totals(kind.name.lower(), totals) for kind, totals in statistics.kinds.items()],
        formats=[_file_totals(*item) for item in statistics.extensions.items()],
        days=[_file_totals(*item) for item in statistics.days.items()],
        free_bytes=statistics.free_bytes,
        disk_bytes=statistics.disk_bytes,
        spool_bytes=statistics.spool_bytes,
    )


def from_verification_result(result: VerificationResult, relative_path: RelativePath) -> export_pb2.VerifyFilesResponse:
    return export_pb2.VerifyFilesResponse(
        generation_id=result.generation_id,
        render_id=result.render_id,
        condition=CONDITION_VALUES[result.condition],
        file_path="" if result.path is None else relative_path(result.path),
        file_size_bytes=result.size_bytes,
        file_sha256=result.sha256,
        problem=result.problem,
    )


def from_cleanup_result(result: CleanupResult, relative_path: RelativePath) -> export_pb2.CleanupResponse:
    return export_pb2.CleanupResponse(
        file=from_file(result.file, relative_path),
        reason=REASON_VALUES[result.reason],
        kept_because=result.kept_because,
    )


def _file_totals(name: str, totals: FileTotals) -> export_pb2.FileFigures:
    return export_pb2.FileFigures(name=name, files=totals.files, bytes=totals.bytes)


def _timestamp(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
