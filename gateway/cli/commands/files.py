"""`dgx-music files …`: imports, lists, verifies and cleans up audio files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

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
    EditTagsRequest,
    ExpectedFile,
    FileCondition,
    FileFigures,
    FileKind,
    GetDownloadUrlRequest,
    GetLibraryStatisticsRequest,
    LibraryFile,
    ListFilesRequest,
    ProvenanceMark,
    VerifyFilesRequest,
    VerifyFilesResponse,
)
from gateway.cli.display.clip_summary import clip_fields
from gateway.cli.display.console import Console, escape_text, format_local_time
from gateway.cli.display.units import format_size, parse_age, parse_duration, parse_size
from gateway.cli.session.clip_upload import upload_clip
from gateway.cli.session.command_errors import FAILURE
from gateway.cli.session.files.cover_file import edit_tags, read_cover
from gateway.cli.session.pagination import fetch_first
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS, STREAM_TIMEOUT_SECONDS

MAX_DAYS_SHOWN = 14
MAX_URL_DURATION = timedelta(days=7)
"""S3's limit."""
KINDS = {"output": FILE_KIND_OUTPUT, "clip": FILE_KIND_CLIP, "render": FILE_KIND_RENDER}


def parse_kinds(kinds: Sequence[str] | None) -> list[FileKind]:
    """Translates the values of --kind to those of the contract."""
    return [KINDS[kind] for kind in kinds or ()]


async def show_url(session: Session, console: Console, file_id: str, render_id: str, expires: str) -> int:
    """Prints a URL of the file of a generation or clip, or of a render."""
    seconds = round(parse_duration(expires, "--expires", MAX_URL_DURATION).total_seconds())
    request = GetDownloadUrlRequest(generation_id=file_id, render_id=render_id, expires_seconds=seconds)
    response = await session.music.GetDownloadUrl(request, timeout=CALL_TIMEOUT_SECONDS)
    if console.as_json:
        console.print_message(response)
    else:
        console.print_line(response.url)
    return 0


async def list_files(session: Session, console: Console, *, limit: int, kinds: Sequence[FileKind]) -> int:
    """Prints the first `limit` files."""
    request = ListFilesRequest(kinds=kinds)
    found = await fetch_first(session.music.ListFiles, request, lambda page: page.files, limit)
    if console.as_json:
        for file in found:
            console.print_message(file)
        return 0
    columns = ("id", False), ("kind", False), ("format", False), ("length", False), ("size", False), ("modified", False)
    console.print_table((*columns, ("file", True)), map(_row, found), none="there are no such files")
    return 0


def _row(file: LibraryFile) -> tuple[str, ...]:
    return (
        file.render_id or file.generation_id,
        _kind(file),
        FileFormat.Name(file.format).removeprefix("FILE_FORMAT_").replace("_", " ") if file.format else "damaged",
        f"{file.frames / file.sample_rate_hz:.1f} s" if file.sample_rate_hz else "",
        format_size(file.file_size_bytes),
        format_local_time(file.modified_at),
        escape_text(file.file_path),
    )


def _kind(file: LibraryFile) -> str:
    return FileKind.Name(file.kind).removeprefix("FILE_KIND_").lower()


async def statistics(session: Session, console: Console) -> int:
    """Prints the number and size of files by kind, format and day, and the free disk space."""
    stats = await session.music.GetLibraryStatistics(GetLibraryStatisticsRequest(), timeout=CALL_TIMEOUT_SECONDS)
    if console.as_json:
        console.print_message(stats)
        return 0
    console.print_fields(
        (
            ("files", f"{stats.total_files}, {format_size(stats.total_bytes)}"),
            *((f"{kind.name}s", _format_figures(kind)) for kind in stats.kinds),
            *((file_format.name, _format_figures(file_format)) for file_format in stats.formats),
            *((day.name, _format_figures(day)) for day in stats.days[-MAX_DAYS_SHOWN:]),
            ("unfinished audio", format_size(stats.spool_bytes) if stats.spool_bytes else ""),
            ("free", f"{format_size(stats.free_bytes)} of {format_size(stats.disk_bytes)}"),
        )
    )
    return 0


def _format_figures(figures: FileFigures) -> str:
    return f"{figures.files}, {format_size(figures.bytes)}"


async def verify(session: Session, console: Console, generation_ids: Sequence[str], *, quick: bool) -> int:
    """Prints a line for each file that is changed, missing or unreadable; returns 1 if there is any, else 0."""
    request = VerifyFilesRequest(files=[ExpectedFile(generation_id=one) for one in generation_ids], presence_only=quick)
    bad = intact = present = 0
    async for response in session.music.VerifyFiles(request, timeout=STREAM_TIMEOUT_SECONDS):
        is_bad = response.condition not in (FILE_CONDITION_INTACT, FILE_CONDITION_PRESENT)
        bad += is_bad
        intact += response.condition == FILE_CONDITION_INTACT
        present += response.condition == FILE_CONDITION_PRESENT
        if console.as_json:
            console.print_message(response)
        elif is_bad:
            console.print_line(_format_bad_file(response))
    counts = [(intact, "intact"), (present, "present" if quick else "present, without a SHA-256"), (bad, "bad")]
    console.print_notice("files: " + (", ".join(f"{count} {what}" for count, what in counts if count) or "none"))
    return FAILURE if bad else 0


def _format_bad_file(response: VerifyFilesResponse) -> str:
    what = f"render {response.render_id} of " if response.render_id else ""
    condition = FileCondition.Name(response.condition).removeprefix("FILE_CONDITION_").lower()
    details = ", ".join(filter(None, [response.file_path, response.problem]))
    return f"{condition}: {what}generation {response.generation_id}" + (f" ({details})" if details else "")


def tag_request(
    generation_id: str, render_id: str, texts: Mapping[str, str | None], cover: Path | None, *, removes_cover: bool
) -> EditTagsRequest:
    """Builds the request from the texts that are not None. Raises CommandError or InvalidArgument if the cover can't be
    used.
    """
    request = EditTagsRequest(generation_id=generation_id, render_id=render_id)
    for name, text in texts.items():
        if text is not None:
            setattr(request, name, text)
    if cover is not None or removes_cover:
        request.cover = read_cover(cover)
    return request


async def tag(session: Session, console: Console, request: EditTagsRequest) -> int:
    """Edits the tags and prints the file."""
    edited = await edit_tags(session, request)
    if console.as_json:
        console.print_message(edited)
        return 0
    marks = (ProvenanceMark.Name(mark).removeprefix("PROVENANCE_MARK_").replace("_", " ") for mark in edited.marks)
    console.print_fields(
        (
            ("file", escape_text(session.locate(edited.file_path))),
            ("size", format_size(edited.file_size_bytes)),
            ("marked", f"AI-generated, in {', '.join(marks)}"),
        )
    )
    return 0


def cleanup_request(
    older_than: str, keep: str, *, orphans: bool, missing: bool, kinds: Sequence[FileKind], dry_run: bool
) -> CleanupRequest:
    """Builds the request. Raises CommandError if the age or the size is invalid."""
    return CleanupRequest(
        kinds=kinds,
        older_than_seconds=parse_age(older_than, "--older-than").total_seconds() if older_than else None,
        keep_newest_bytes=parse_size(keep, "--keep") if keep else None,
        orphans=orphans,
        missing=missing,
        dry_run=dry_run,
    )


async def cleanup(session: Session, console: Console, request: CleanupRequest) -> int:
    """Prints a line for each file that was deleted, would be deleted, or was kept because it is in use."""
    count = file_bytes = kept = 0
    async for response in session.music.Cleanup(request, timeout=STREAM_TIMEOUT_SECONDS):
        if console.as_json:
            console.print_message(response)
            continue
        file = response.file
        reason = CleanupReason.Name(response.reason).removeprefix("CLEANUP_REASON_").lower()
        if response.reason == CLEANUP_REASON_MISSING:
            line = f"{reason}: the file of generation {file.generation_id}"
        else:
            line = f"{reason}: {_kind(file)} {file.file_path}, {format_size(file.file_size_bytes)}"
        if response.kept_because:
            kept += 1
            line = f"kept, {response.kept_because}: {file.file_path or file.generation_id}"
        else:
            count += 1
            file_bytes += file.file_size_bytes
        console.print_line(line)
    if not console.as_json:
        what = f"{count} items, {format_size(file_bytes)}" + (f"; kept {kept} in use" if kept else "")
        console.print_notice(f"would delete {what}; use --yes to delete" if request.dry_run else f"deleted {what}")
    return 0


async def delete_clip(session: Session, console: Console, clip_id: str) -> int:
    """Deletes a clip."""
    response = await session.music.DeleteFile(DeleteFileRequest(generation_id=clip_id), timeout=CALL_TIMEOUT_SECONDS)
    if console.as_json:
        console.print_message(response)
    else:
        console.print_notice(f"deleted clip {clip_id}")
    return 0


async def import_clips(session: Session, console: Console, paths: Sequence[Path]) -> int:
    """Imports local audio files as clips and prints what each is."""
    for path in paths:
        clip = await upload_clip(session, path, "FILE")
        if console.as_json:
            console.print_message(clip)
        else:
            console.print_fields(clip_fields(clip, path))
    return 0
