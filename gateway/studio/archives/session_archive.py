"""`GET /api/session`: takes as a session for DAWs, in an archive."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import grpc.aio
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from dgx_music.client.async_client import AsyncClient
from dgx_music.errors import InvalidArgument, ResourceExhausted, Unavailable
from gateway.daw.session_export import MAX_TAKES, SessionFormat, SessionOptions, export_session
from gateway.file_names import cut
from gateway.studio.archives.archive_response import send_archive
from gateway.studio.finished_file import find_generation, title_of
from gateway.studio.gateway_calls import translate
from gateway.web.connected_callers import run_while_connected
from gateway.web.gateway_clients import GatewayClients

NOTICES_HEADER = "dgx-music-notices"
"""What the session lacks, percent-encoded."""
MAX_NOTICES, MAX_NOTICE_CHARACTERS = 3, 300
"""Of the header: all of them are in the session's notes."""


class SessionArchive:
    """Sends the folder that `dgx-music session export` writes: for the DAWs that `format` names, or for all; with the
    `stems` and the `midi` of each take, if the query asks for them. It is in a temporary folder meanwhile."""

    def __init__(self, clients: GatewayClients) -> None:
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        ids = list(dict.fromkeys(request.query_params.getlist("id")))
        if not 0 < len(ids) <= MAX_TAKES:
            raise InvalidArgument("id", f"give 1 to {MAX_TAKES} ids of generations, not {len(ids)}")
        formats = [_parse_format(name) for name in dict.fromkeys(request.query_params.getlist("format"))]

        async def answer(client: AsyncClient) -> None:
            title = title_of(await find_generation(client, ids[0])) + (f" +{len(ids) - 1}" if len(ids) > 1 else "")
            options = SessionOptions(
                name=title,
                formats=formats or tuple(SessionFormat),
                with_stems="stems" in request.query_params,
                with_midi="midi" in request.query_params,
            )
            with _temporary_folder() as folder:
                with _disk_errors(folder):
                    try:
                        exported = await export_session(client.music, ids, folder, options)
                    except grpc.aio.AioRpcError as error:
                        raise translate(error) from error
                await send_archive(folder, title, _notices_header(exported.notices), send)

        async with self._clients.client_for(request) as client:
            await run_while_connected(answer(client), receive)


def _notices_header(notices: Sequence[str]) -> dict[str, str]:
    if not notices:
        return {}
    shown = [cut(notice, MAX_NOTICE_CHARACTERS) for notice in notices[:MAX_NOTICES]]
    if more := len(notices) - len(shown):
        shown.append(f"{more} more in the session's notes")
    return {NOTICES_HEADER: quote("\n".join(shown))}


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    parent = tempfile.gettempdir()
    with ExitStack() as stack:
        with _disk_errors(Path(parent)):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dgx-music-session-", dir=parent))
        yield Path(folder)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Says what to do if the session can't be written."""
    try:
        yield
    except OSError as error:
        cause = f"the Studio can't write the session below {folder}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceExhausted(
                f"{cause}; leave out the stems, or start the Studio with TMPDIR at a larger folder",
                reason="DISK_FULL",
            ) from error
        raise Unavailable(f"{cause}; start it with TMPDIR at another folder", reason="DISK_FAILED") from error


def _parse_format(name: str) -> SessionFormat:
    try:
        return SessionFormat(name)
    except ValueError as error:
        names = ", ".join(SessionFormat)
        raise InvalidArgument("format", f"must be one of {names}, not {name[:40]!r}") from error
