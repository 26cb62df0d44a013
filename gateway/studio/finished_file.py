"""`GET /api/generations/{id}/file`: the finished file or a render of it, whole or a range."""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC
from pathlib import PurePosixPath
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dgx_music.client.async_client import AsyncClient
from dgx_music.client.generation_options import FORMATS, FileOptions, build_output
from dgx_music.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, OutOfRange, ServiceError
from dgx_music.export.v1.export_pb2 import DownloadRequest, RenderRequest
from dgx_music.storage.v1.storage_pb2 import GENERATION_STATE_COMPLETED, Generation, GetGenerationRequest
from gateway.file_names import cut, file_name
from gateway.studio.gateway_calls import WORK_SECONDS, call, stream
from gateway.web.connected_callers import run_while_connected
from gateway.web.gateway_clients import GatewayClients
from gateway.web.request_log import CutOff
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

MEDIA_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".aiff": "audio/aiff",
    ".aif": "audio/aiff",
    ".caf": "audio/x-caf",
    ".w64": "audio/x-w64",
    ".m4a": "audio/mp4",
}
MAX_PROMPT_CHARACTERS = 40
"""Of the prompt in the name of a file."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class _File:
    request: DownloadRequest
    title: str
    """What the name begins with; empty for a clip, which has no prompt."""
    tag: str
    """The entity tag of these bytes; empty if their hash is not known."""


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    """The byte after the last one."""
    size: int
    """Of the whole file."""


class FinishedFile:
    """Sends the file as it is, or in the `format` that the query names, with ranges and an entity tag. With `download`
    in the query, the browser saves it under a speaking name."""

    def __init__(self, clients: GatewayClients) -> None:
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        async with self._clients.client_for(request) as client:
            await run_while_connected(_answer(client, request, send), receive)


async def _answer(client: AsyncClient, request: Request, send: Send) -> None:
    file = await _find(client, request.path_params["id"], request.query_params.get("format", ""))
    headers = {"accept-ranges": "bytes", "cache-control": "private, no-cache"}
    if file.tag:
        headers["etag"] = file.tag
        if file.tag in request.headers.get("if-none-match", ""):
            return await Response(status_code=304, headers=headers)(request.scope, request.receive, send)
    wanted = _parse_range(request.headers.get("range", ""))
    if request.headers.get("if-range", file.tag) != file.tag:
        wanted = None  # A part of another file than the one that the caller has a part of would be useless.
    try:
        await _send(client, request, file, wanted, headers, send)
    except OutOfRange:
        size = (await _span_of(client, file, None)).size
        headers["content-range"] = f"bytes */{size}"
        await Response(status_code=416, headers=headers)(request.scope, request.receive, send)
    return None


async def _find(client: AsyncClient, id: str, format: str) -> _File:
    if format and format not in FORMATS:
        raise InvalidArgument("format", f"must be one of {', '.join(FORMATS)}, not {format[:40]!r}")
    try:
        generation = await find_generation(client, id)
    except NotFound:
        if format:
            raise
        return _File(DownloadRequest(generation_id=id), "", "")  # A clip, or nothing, which Download reports.
    if generation.state != GENERATION_STATE_COMPLETED:
        raise FailedPrecondition(
            f"generation {id} has no finished file; it has one once it is completed", reason="NOT_COMPLETED"
        )
    title, own = title_of(generation), generation.metadata.fields
    if format and FORMATS[format] != (generation.output.format or FORMATS["wav"]):
        output = build_output(FileOptions(format=format))
        made = await call(client.music.Render, RenderRequest(generation_id=id, output=output), WORK_SECONDS)
        render = DownloadRequest(generation_id=id, render_id=made.render_id)
        return _File(render, title, f'"{made.file.file_sha256}"')
    sha256 = own["file_sha256"].string_value if "file_sha256" in own else ""
    return _File(DownloadRequest(generation_id=id), title, f'"{sha256}"' if sha256 else "")


async def find_generation(client: AsyncClient, id: str) -> Generation:
    """Returns the generation. Raises NotFound if there is none."""
    return (await call(client.music.GetGeneration, GetGenerationRequest(id=id))).generation


def title_of(generation: Generation) -> str:
    """Returns what files of the generation are called: the day, the beginning of the prompt, and the seed."""
    created = generation.created_at.ToDatetime(tzinfo=UTC).astimezone()
    prompt = cut(" ".join(generation.prompt.split()), MAX_PROMPT_CHARACTERS).rstrip()
    return f"{created:%Y-%m-%d} {prompt} {generation.seed}"


def _parse_range(text: str) -> tuple[int | None, int | None] | None:
    """Returns first and last byte; only the second for the last bytes of the file; None for all of it."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        return None  # Several ranges, or none that is known: the whole file is a valid answer (RFC 9110, 14.2).
    first, last = (int(number) if number else None for number in match.groups())
    if first is not None and last is not None and last < first:
        return None
    return first, last


async def _send(
    client: AsyncClient,
    request: Request,
    file: _File,
    wanted: tuple[int | None, int | None] | None,
    headers: dict[str, str],
    send: Send,
) -> None:
    span = await _span_of(client, file, wanted)
    has_begun = False
    rest = DownloadRequest(start_byte=span.start, byte_count=span.end - span.start)
    rest.MergeFrom(file.request)
    left = span.end - span.start
    try:
        async with aclosing(stream(client.music.Download, rest)) as parts:
            async for part in parts:
                if not has_begun:
                    if part.file_size_bytes != span.size:
                        raise DataLoss("the file was replaced meanwhile; ask again", reason="FILE_CHANGED")
                    headers |= _describe(request, file, part.file_name, span, is_part=wanted is not None)
                    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
                    status = 200 if wanted is None else 206
                    await send({"type": "http.response.start", "status": status, "headers": encoded})
                    has_begun = True
                    if request.method == "HEAD":
                        return await send({"type": "http.response.body", "body": b""})
                left -= len(part.data)
                await send({"type": "http.response.body", "body": part.data, "more_body": left > 0})
        if left:
            raise DataLoss(f"{left} bytes of the file are missing", reason="FILE_INCOMPLETE")
    except ServiceError as error:
        if not has_begun:
            raise
        log.warning("download_cut_off", generation_id=file.request.generation_id, reason=error.reason)
        raise CutOff from error


async def _span_of(client: AsyncClient, file: _File, wanted: tuple[int | None, int | None] | None) -> _Span:
    """Returns which bytes are asked for. Raises OutOfRange if there are none."""
    request = DownloadRequest(byte_count=1)
    request.MergeFrom(file.request)
    async with aclosing(stream(client.music.Download, request)) as parts:
        size = (await anext(parts)).file_size_bytes
    first, last = wanted or (0, None)
    if first is None:
        first, last = max(0, size - (last or 0)), None
    if first >= size:
        raise OutOfRange(f"the file has {size} bytes", reason="RANGE_NOT_SATISFIABLE")
    return _Span(first, size if last is None else min(last + 1, size), size)


def _describe(request: Request, file: _File, stored_name: str, span: _Span, *, is_part: bool) -> dict[str, str]:
    suffix = PurePosixPath(stored_name).suffix
    name = file_name(file.title, suffix, "music") if file.title else stored_name
    headers = {
        "content-type": MEDIA_TYPES.get(suffix, "application/octet-stream"),
        "content-length": str(span.end - span.start),
        "content-disposition": content_disposition(name, is_download="download" in request.query_params),
    }
    if is_part:
        headers["content-range"] = f"bytes {span.start}-{span.end - 1}/{span.size}"
    return headers


def content_disposition(name: str, *, is_download: bool = True) -> str:
    """Returns the header for a file of any name (RFC 6266): in ASCII for old programs, and as it is."""
    plain = "".join(one if " " <= one <= "~" and one not in '"\\%' else "_" for one in name)
    kind = "attachment" if is_download else "inline"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
