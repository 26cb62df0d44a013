"""Sends a folder as a zip archive with a speaking name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

from starlette.types import Send

from gateway.file_names import file_name
from gateway.studio.archives.zip_stream import stream_zip
from gateway.studio.finished_file import content_disposition


async def send_archive(folder: Path, title: str, headers: Mapping[str, str], send: Send) -> None:
    """Sends an archive with the files of the folder, below a folder with the title."""
    described = {
        "content-type": "application/zip",
        "content-disposition": content_disposition(file_name(title, ".zip", "music")),
        **headers,
    }
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in described.items()]
    await send({"type": "http.response.start", "status": 200, "headers": encoded})
    async with aclosing(stream_zip(folder, file_name(title, "", "music"))) as parts:
        async for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
