"""Proto ↔ domain, for what looks after the library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2
from export_service.library.cleanup import Cleaned, Policy, Reason
from export_service.library.inventory import Contents, Kind, LibraryFile
from export_service.library.library_statistics import Figures, LibraryStatistics
from export_service.library.verification import Condition, Verified
from export_service.rpc.converters import to_generation_id
from service_runtime.rpc.output_converters import FORMAT_NAMES

MAX_EXPECTED = 1000
MAX_AGE = timedelta(days=365_000)

Relative = Callable[[Path], str]
"""Gives a path from the data directory."""

KINDS = {
    export_pb2.FILE_KIND_OUTPUT: Kind.OUTPUT,
    export_pb2.FILE_KIND_CLIP: Kind.CLIP,
    export_pb2.FILE_KIND_RENDER: Kind.RENDER,
}
FILE_KINDS = {kind: value for value, kind in KINDS.items()}
CONDITIONS = {
    Condition.INTACT: export_pb2.FILE_CONDITION_INTACT,
    Condition.CHANGED: export_pb2.FILE_CONDITION_CHANGED,
    Condition.MISSING: export_pb2.FILE_CONDITION_MISSING,
    Condition.UNREADABLE: export_pb2.FILE_CONDITION_UNREADABLE,
    Condition.PRESENT: export_pb2.FILE_CONDITION_PRESENT,
}
REASONS = {
    Reason.AGE: export_pb2.CLEANUP_REASON_AGE,
    Reason.SIZE: export_pb2.CLEANUP_REASON_SIZE,
    Reason.ORPHAN: export_pb2.CLEANUP_REASON_ORPHAN,
}


def to_kinds(kinds: Iterable[export_pb2.FileKind]) -> list[Kind]:
    found = []
    for index, kind in enumerate(kinds):
        if kind not in KINDS:
            raise InvalidArgument(f"kinds[{index}]", f"{kind} is no value of this enum that the server knows")
        found.append(KINDS[kind])
    return found


def to_expected(files: Iterable[export_pb2.ExpectedFile]) -> list[tuple[str, str]]:
    """Ids, and what the files of them are to hash to."""
    expected = [
        (to_generation_id(file.generation_id, f"files[{index}].generation_id"), file.file_sha256)
        for index, file in enumerate(files)
    ]
    if not 1 <= len(expected) <= MAX_EXPECTED:
        raise InvalidArgument("files", f"must be 1 to {MAX_EXPECTED}, not {len(expected)}")
    return expected


def to_policy(request: export_pb2.CleanupRequest) -> Policy:
    older_than = None
    if request.HasField("older_than_seconds"):
        seconds = request.older_than_seconds
        if not (math.isfinite(seconds) and 0 <= seconds <= MAX_AGE.total_seconds()):
            raise InvalidArgument("older_than_seconds", f"must be 0 or more, not {seconds}")
        older_than = timedelta(seconds=seconds)
    keep = request.keep_newest_bytes if request.HasField("keep_newest_bytes") else None
    if keep is not None and keep < 0:
        raise InvalidArgument("keep_newest_bytes", f"must be 0 or more, not {keep}")
    return Policy(to_kinds(request.kinds), older_than, keep, request.orphans)


def from_file(file: LibraryFile, relative: Relative, contents: Contents | None = None) -> export_pb2.LibraryFile:
    return export_pb2.LibraryFile(
        kind=FILE_KINDS[file.kind],
        generation_id=file.generation_id,
        render_id=file.render_id,
        file_path=relative(file.path),
        file_size_bytes=file.size_bytes,
        modified_at=_timestamp(file.modified_at),
        format=None if contents is None else FORMAT_NAMES[contents.format],
        frames=0 if contents is None else contents.frames,
        sample_rate_hz=0 if contents is None else contents.sample_rate_hz,
        channels=0 if contents is None else contents.channels,
    )


def from_statistics(found: LibraryStatistics) -> export_pb2.GetLibraryStatisticsResponse:
    return export_pb2.GetLibraryStatisticsResponse(
        total_files=found.total.files,
        total_bytes=found.total.bytes,
        kinds=[_figures(kind.name.lower(), figures) for kind, figures in found.kinds.items()],
        formats=[_figures(*named) for named in found.extensions.items()],
        days=[_figures(*named) for named in found.days.items()],
        free_bytes=found.free_bytes,
        disk_bytes=found.disk_bytes,
    )


def from_verified(verified: Verified, relative: Relative) -> export_pb2.VerifyFilesResponse:
    return export_pb2.VerifyFilesResponse(
        generation_id=verified.generation_id,
        render_id=verified.render_id,
        condition=CONDITIONS[verified.condition],
        file_path="" if verified.path is None else relative(verified.path),
        file_size_bytes=verified.size_bytes,
        file_sha256=verified.sha256,
        problem=verified.problem,
    )


def from_cleaned(cleaned: Cleaned, relative: Relative) -> export_pb2.CleanupResponse:
    return export_pb2.CleanupResponse(
        file=from_file(cleaned.file, relative), reason=REASONS[cleaned.reason], kept_because=cleaned.kept_because
    )


def _figures(name: str, figures: Figures) -> export_pb2.FileFigures:
    return export_pb2.FileFigures(name=name, files=figures.files, bytes=figures.bytes)


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
