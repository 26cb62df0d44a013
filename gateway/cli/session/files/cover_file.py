"""Covers: a picture file that is put into the tags of a finished file or of a render."""

from __future__ import annotations

from pathlib import Path

from dgx_music.audio.v1.audio_pb2 import FILE_FORMAT_WAV_PCM_24, FileFormat
from dgx_music.export.v1.export_pb2 import EditTagsRequest, EditTagsResponse
from dgx_music.limits import MAX_COVER_BYTES
from dgx_music.storage.v1.storage_pb2 import Generation
from export_service.tagging.cover import WITHOUT_COVER, parse_cover
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.runner import Session
from gateway.timeouts import STREAM_TIMEOUT_SECONDS


def read_cover(path: Path | None, file_format: FileFormat | None = None) -> bytes:
    """Returns the content of the picture that --cover names; empty if it is not given.

    Raises CommandError or InvalidArgument if it is not a PNG or JPEG file of at most 3 MiB, or if a file of this
    format can't have it.
    """
    if path is None:
        return b""
    container = FileFormat.Name(file_format or FILE_FORMAT_WAV_PCM_24).removeprefix("FILE_FORMAT_").partition("_")[0]
    if container in WITHOUT_COVER:
        raise CommandError(f"--cover: {container} files have no place for a picture; use another --format", BAD_INPUT)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_COVER_BYTES + 1)
    except OSError as error:
        raise CommandError(f"--cover: {path} can't be read: {error.strerror}", BAD_INPUT) from error
    return parse_cover(data, "cover").data


async def edit_tags(session: Session, request: EditTagsRequest) -> EditTagsResponse:
    """Edits the tags. Waits for renders of the same generation."""
    return await session.music.EditTags(request, timeout=STREAM_TIMEOUT_SECONDS)


async def add_cover(session: Session, generation: Generation, cover: bytes) -> None:
    """Puts the cover into the finished file, and updates the file's size and hash in `generation`."""
    edited = await edit_tags(session, EditTagsRequest(generation_id=generation.id, cover=cover))
    generation.file_size_bytes = edited.file_size_bytes
    generation.metadata["file_sha256"] = edited.file_sha256
