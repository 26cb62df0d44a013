"""Hundreds of pages at once, with the command in a process of its own, as its users run it."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import psutil
import pytest

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE
from dgx_music.client import connect
from dgx_music.export.v1.export_pb2 import StreamAudioRequest
from tests.support.studio import TIMEOUT_SECONDS, studio_process

WATCHERS, LISTENERS = 200, 50
SECONDS = 60
MIB = 1 << 20


class Page:
    """A connection that asks for a stream."""

    def __init__(self) -> None:
        self.size, self.sha256, self.tail = 0, hashlib.sha256(), b""

    async def read(self, port: int, path: str) -> None:
        """Reads the stream to its end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        while size := int(await reader.readline(), 16):
            part = await reader.readexactly(size + 2)
            self.size += size
            self.sha256.update(part[:-2])
            self.tail = (self.tail + part[:-2])[-200:]
        writer.close()


@pytest.mark.slow
async def test_two_hundred_watch_and_fifty_listen(tmp_path: Path) -> None:
    async with studio_process(tmp_path) as page:
        id = await page.create("ambient at 70 BPM", SECONDS)
        watchers, listeners = [Page() for _ in range(WATCHERS)], [Page() for _ in range(LISTENERS)]
        async with asyncio.timeout(4 * TIMEOUT_SECONDS), asyncio.TaskGroup() as group:
            for watcher in watchers:
                group.create_task(watcher.read(page.port, f"/api/events?id={id}"))
            for listener in listeners:
                group.create_task(listener.read(page.port, f"/api/generations/{id}/live?level=LIVE"))
        assert all(
            b"GENERATION_STATE_COMPLETED" in watcher.tail or b"event: done" in watcher.tail for watcher in watchers
        )
        # Everybody has heard the same, and all of it.
        assert {listener.size for listener in listeners} == {SECONDS * 32_000 * 8}
        [heard] = {listener.sha256.hexdigest() for listener in listeners}
        async with connect(f"unix:{tmp_path}/run/gateway.sock") as music:
            request = StreamAudioRequest(generation_id=id, level=AUDIO_LEVEL_LIVE)
            sha256 = hashlib.sha256()
            async for part in music.StreamAudio(request, timeout=TIMEOUT_SECONDS):
                sha256.update(part.chunk.pcm)
        assert heard == sha256.hexdigest()


@pytest.mark.slow
async def test_large_upload_is_never_in_memory(tmp_path: Path) -> None:
    size = 200 * MIB

    async def zeros() -> object:
        header = b"RIFF" + (size + 36).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
        form = (
            b"\x01\x00\x02\x00" + (96_000).to_bytes(4, "little") + (384_000).to_bytes(4, "little") + b"\x04\x00\x10\x00"
        )
        yield header + form + b"data" + size.to_bytes(4, "little")
        for _ in range(size // MIB):
            yield bytes(MIB)

    async with studio_process(tmp_path) as page:
        [process] = [
            one for one in psutil.Process().children() if "studio" in one.cmdline() and str(tmp_path) in one.cmdline()
        ]
        before, peak = process.memory_info().rss, 0

        async def watch() -> None:
            nonlocal peak
            while True:
                peak = max(peak, process.memory_info().rss)
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        headers = {"content-type": "audio/wav"}
        answer = await page.http.post("/api/clips", content=zeros(), headers=headers, timeout=4 * TIMEOUT_SECONDS)  # type: ignore[arg-type]
        watching.cancel()
        assert answer.status_code == 200, answer.text
        assert answer.json()["frames"] == str(size // 4)
        assert peak - before < size // 2, (before, peak)
