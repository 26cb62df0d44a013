"""What `dgx-music files …` does."""

from __future__ import annotations

from collections.abc import Sequence

from dgx_music.audio.v1.audio_pb2 import FileFormat
from dgx_music.export.v1.export_pb2 import (
    CLEANUP_REASON_MISSING,
    FILE_CONDITION_INTACT,
    FILE_CONDITION_PRESENT,
    FILE_KIND_CLIP,
    FILE_KIND_OUTPUT,
    FILE_KIND_RENDER,
    CleanupReason,
    CleanupRequest,
    DeleteFileRequest,
    ExpectedFile,
    FileCondition,
    FileFigures,
    FileKind,
    GetLibraryStatisticsRequest,
    LibraryFile,
    ListFilesRequest,
    VerifyFilesRequest,
    VerifyFilesResponse,
)
from gateway.cli.display.console import Screen, escaped, local_time
from gateway.cli.display.units import age_of, bytes_of, in_words
from gateway.cli.session.command_errors import FAILURE
from gateway.cli.session.pagination import first
from gateway.cli.session.runner import CALL_SECONDS, STREAM_SECONDS, Session

DAYS_SHOWN = 14
KINDS = {"output": FILE_KIND_OUTPUT, "clip": FILE_KIND_CLIP, "render": FILE_KIND_RENDER}


def kinds_of(kinds: Sequence[str] | None) -> list[FileKind]:
    """As typed → as sent."""
    return [KINDS[kind] for kind in kinds or ()]


async def list_files(session: Session, screen: Screen, *, limit: int, kinds: Sequence[FileKind]) -> int:
    """The first `limit` files."""
    request = ListFilesRequest(kinds=kinds)
    found = await first(session.music.ListFiles, request, lambda page: page.files, limit)
    if screen.as_json:
        for file in found:
            screen.message(file)
        return 0
    columns = ("id", False), ("kind", False), ("format", False), ("length", False), ("size", False), ("since", False)
    screen.rows((*columns, ("file", True)), map(_row, found))
    return 0


def _row(file: LibraryFile) -> tuple[str, ...]:
    return (
        file.render_id or file.generation_id,
        _kind(file),
        FileFormat.Name(file.format).removeprefix("FILE_FORMAT_").replace("_", " ") if file.format else "damaged",
        f"{file.frames / file.sample_rate_hz:.1f} s" if file.sample_rate_hz else "",
        in_words(file.file_size_bytes),
        local_time(file.modified_at),
        escaped(file.file_path),
    )


def _kind(file: LibraryFile) -> str:
    return FileKind.Name(file.kind).removeprefix("FILE_KIND_").lower()


async def statistics(session: Session, screen: Screen) -> int:
    """The library's figures."""
    got = await session.music.GetLibraryStatistics(GetLibraryStatisticsRequest(), timeout=CALL_SECONDS)
    if screen.as_json:
        screen.message(got)
        return 0
    screen.facts(
        (
            ("files", f"{got.total_files}, {in_words(got.total_bytes)}"),
            *((f"{one.name}s", _figures(one)) for one in got.kinds),
            *((one.name, _figures(one)) for one in got.formats),
            *((one.name, _figures(one)) for one in got.days[-DAYS_SHOWN:]),
            ("free", f"{in_words(got.free_bytes)} of {in_words(got.disk_bytes)}"),
        )
    )
    return 0


def _figures(figures: FileFigures) -> str:
    return f"{figures.files}, {in_words(figures.bytes)}"


async def verify(session: Session, screen: Screen, generation_ids: Sequence[str], *, quick: bool) -> int:
    """Says what is not as it was; gives 1 if anything is."""
    request = VerifyFilesRequest(files=[ExpectedFile(generation_id=one) for one in generation_ids], presence_only=quick)
    wrong = intact = unknown = 0
    async for response in session.music.VerifyFiles(request, timeout=STREAM_SECONDS):
        is_wrong = response.condition not in (FILE_CONDITION_INTACT, FILE_CONDITION_PRESENT)
        wrong += is_wrong
        intact += response.condition == FILE_CONDITION_INTACT
        unknown += response.condition == FILE_CONDITION_PRESENT
        if screen.as_json:
            screen.message(response)
        elif is_wrong:
            screen.out.print(_finding(response), markup=False)
    counts = [(intact, "as they landed"), (unknown, "there" if quick else "there, without a SHA-256"), (wrong, "not")]
    screen.notice("files: " + (", ".join(f"{count} {what}" for count, what in counts if count) or "none"))
    return FAILURE if wrong else 0


def _finding(response: VerifyFilesResponse) -> str:
    what = f"render {response.render_id} of " if response.render_id else ""
    condition = FileCondition.Name(response.condition).removeprefix("FILE_CONDITION_").lower()
    details = ", ".join(filter(None, [response.file_path, response.problem]))
    return f"{condition}: {what}generation {response.generation_id}" + (f" ({details})" if details else "")


def cleanup_request(
    older_than: str, keep: str, *, orphans: bool, missing: bool, kinds: Sequence[FileKind], dry_run: bool
) -> CleanupRequest:
    """Raises CommandError for an age or a size that is none."""
    return CleanupRequest(
        kinds=kinds,
        older_than_seconds=age_of(older_than, "--older-than").total_seconds() if older_than else None,
        keep_newest_bytes=bytes_of(keep, "--keep") if keep else None,
        orphans=orphans,
        missing=missing,
        dry_run=dry_run,
    )


async def cleanup(session: Session, screen: Screen, request: CleanupRequest) -> int:
    """Says what goes, file by file, or would go."""
    count = file_bytes = kept = 0
    async for response in session.music.Cleanup(request, timeout=STREAM_SECONDS):
        if screen.as_json:
            screen.message(response)
            continue
        file = response.file
        reason = CleanupReason.Name(response.reason).removeprefix("CLEANUP_REASON_").lower()
        if response.reason == CLEANUP_REASON_MISSING:
            line = f"{reason}: the file of generation {file.generation_id}"
        else:
            line = f"{reason}: {_kind(file)} {file.file_path}, {in_words(file.file_size_bytes)}"
        if response.kept_because:
            kept += 1
            line = f"kept, {response.kept_because}: {file.file_path or file.generation_id}"
        else:
            count += 1
            file_bytes += file.file_size_bytes
        screen.out.print(line, markup=False)
    if not screen.as_json:
        what = f"{count} with {in_words(file_bytes)}" + (f", kept {kept} in use" if kept else "")
        screen.notice(f"would delete {what}; --yes does it" if request.dry_run else f"deleted {what}")
    return 0


async def delete_clip(session: Session, screen: Screen, clip_id: str) -> int:
    """Deletes a clip."""
    response = await session.music.DeleteFile(DeleteFileRequest(generation_id=clip_id), timeout=CALL_SECONDS)
    if screen.as_json:
        screen.message(response)
    else:
        screen.notice(f"deleted clip {clip_id}")
    return 0
