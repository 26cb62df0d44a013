"""`GET /api/generations/{id}/midi` and `/stems`: the notes as a MIDI file, and the stems as WAV files in an archive."""

from __future__ import annotations

import tempfile
from contextlib import aclosing
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dgx_music.client.async_client import AsyncClient
from dgx_music.client.stem_files import save_stems
from dgx_music.generation.v1.generation_pb2 import GetMidiRequest, PartOrigin, StreamStemsRequest
from gateway.file_names import file_name
from gateway.studio.archives.archive_response import send_archive
from gateway.studio.finished_file import content_disposition, find_generation, title_of
from gateway.studio.gateway_calls import WORK_SECONDS, call, stream
from gateway.web.connected_callers import run_while_connected
from gateway.web.gateway_clients import GatewayClients

ORIGIN_HEADER = "dgx-music-origin"
"""COMPOSED or ESTIMATED: whether the model knows its notes or stems, or they were found in the audio."""


class MidiFile:
    """Sends the notes."""

    def __init__(self, clients: GatewayClients) -> None:
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)

        async def answer(client: AsyncClient) -> None:
            id = request.path_params["id"]
            generation = await find_generation(client, id)
            found = await call(client.music.GetMidi, GetMidiRequest(generation_id=id), WORK_SECONDS)
            headers = {
                "content-disposition": content_disposition(file_name(title_of(generation), ".mid", "music")),
                ORIGIN_HEADER: origin_name(found.origin),
            }
            await Response(found.midi, media_type="audio/midi", headers=headers)(scope, receive, send)

        async with self._clients.client_for(request) as client:
            await run_while_connected(answer(client), receive)


class StemArchive:
    """Sends the stems once all are there; until then they are in a temporary folder."""

    def __init__(self, clients: GatewayClients) -> None:
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)

        async def answer(client: AsyncClient) -> None:
            id = request.path_params["id"]
            title = f"{title_of(await find_generation(client, id))} stems"
            with tempfile.TemporaryDirectory(prefix="dgx-music-stems-") as folder:
                async with aclosing(
                    stream(client.music.StreamStems, StreamStemsRequest(generation_id=id))
                ) as responses:
                    stems = await save_stems(responses, Path(folder))
                headers = {
                    ORIGIN_HEADER: origin_name(stems.header.origin),
                    "dgx-music-file-gain-db": f"{stems.header.file_gain_db:.3f}",
                }
                await send_archive(Path(folder), title, headers, send)

        async with self._clients.client_for(request) as client:
            await run_while_connected(answer(client), receive)


def origin_name(origin: PartOrigin) -> str:
    """Returns COMPOSED, or ESTIMATED for what was found in the audio."""
    return PartOrigin.Name(origin).removeprefix("PART_ORIGIN_")
