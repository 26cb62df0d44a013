"""The Studio in a bad neighbourhood: other sites' pages, rebound names, strangers and slow requests; a gateway that
dies under the page and comes back; and a Studio that is stopped while its page listens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE
from dgx_music.client import connect
from dgx_music.export.v1.export_pb2 import StreamAudioRequest
from dgx_music.storage.v1.storage_pb2 import CancelGenerationRequest
from gateway.studio import event_stream
from gateway.web import limited_protocol, request_body
from tests.support.cut_connection import forwarding_to
from tests.support.embedded_services import embedded_services
from tests.support.log_capture import captured_logs
from tests.support.music_server import KillableServer
from tests.support.studio import TIMEOUT_SECONDS, Studio, follow, studio, studio_process

NOWHERE = "127.0.0.1:1"
JSON = {"content-type": "application/json"}


@pytest.fixture
async def page() -> AsyncIterator[Studio]:
    """A Studio that answers by itself all that is asked here: there is no gateway."""
    async with studio(NOWHERE, allowed_hosts="music.example") as served:
        yield served


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "rebound.example"}, 421),
        ({"host": "127.0.0.1.rebound.example"}, 421),
        ({"host": "rebound.example", "origin": "http://rebound.example"}, 421),
        ({"host": "localhost", "origin": "http://page.example"}, 403),
        ({"host": "localhost", "origin": "null"}, 403),
        ({"host": "localhost", "origin": "http://localhost:3000"}, 403),  # Another server on this machine.
        ({"host": "localhost:8090", "origin": "http://localhost"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"host": "localhost", "origin": "http://localhost", "sec-fetch-site": "same-origin"}, 503),
        ({"host": "music.example", "origin": "https://music.example"}, 503),
        ({"sec-fetch-site": "none"}, 503),
    ],
)
async def test_only_its_own_page_is_answered(page: Studio, headers: dict[str, str], status: int) -> None:
    response = await page.http.post("/api/CancelGeneration", json={"id": "a"}, headers=headers)
    assert response.status_code == status
    assert "access-control-allow-origin" not in response.headers
    # A link from elsewhere leads to the page, but not to what a page of another site could embed.
    if "sec-fetch-site" in headers:
        assert (await page.http.get("/", headers=headers)).status_code == 200
        audio = await page.http.get("/api/generations/a/live", headers=headers)
        assert audio.status_code == (503 if status == 503 else 403)


async def test_no_other_origin_is_told_that_it_may_ask(page: Studio) -> None:
    asked = {"origin": "http://page.example", "access-control-request-method": "POST"}
    response = await page.http.request("OPTIONS", "/api/CreateGeneration", headers=asked)
    assert response.status_code in (403, 405)
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_bodies_that_never_end_are_not_waited_for(page: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "READ_SECONDS", 0.2)
    monkeypatch.setattr(limited_protocol, "HEAD_SECONDS", 0.5)
    slow = [await asyncio.open_connection("127.0.0.1", page.port) for _ in range(50)]
    head = b"POST /api/ListGenerations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for number, (_, writer) in enumerate(slow):
        writer.write((head + b"Content-Length: 9\r\n\r\n{", head)[number % 2])
    answers = [await asyncio.wait_for(reader.readline(), TIMEOUT_SECONDS) for reader, _ in slow]
    assert {answer.split()[1] for answer in answers} == {b"408"}
    assert (await page.http.get("/")).status_code == 200
    for _, writer in slow:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.mark.slow
async def test_strangers_learn_nothing(tmp_path: Path) -> None:
    token = f"dgxm_abcdefgh_{'x' * 43}"
    async with embedded_services(tmp_path) as services, studio(services.address, require_tokens=True) as page:
        tries = [
            {},
            {"authorization": f"Bearer {token}"},
            {"authorization": "Bearer \xff".encode("latin-1")},
            {"cookie": f"dgx-music-token={token}"},
            {"cookie": f"dgx-music-token={'x' * 9000}"},
            {"cookie": "dgx-music-token=dgxm_%00%0d%0a; dgx-music-token="},
            {"xi-api-key": token},
        ]
        for headers in tries:
            for method, path in (
                ("POST", "/api/ListGenerations"),
                ("POST", "/api/clips"),
                ("GET", "/api/events?id=a"),
                ("GET", "/api/generations/a/live"),
                ("GET", "/api/generations/a/file?format=mp3"),
                ("GET", "/api/generations/a/stems"),
                ("GET", "/api/generations/a/commands"),
            ):
                kind = {"content-type": "audio/wav" if path.endswith("clips") else "application/json"}
                answer = await page.http.request(method, path, headers={**kind, **headers})
                assert "UNAUTHENTICATED" in answer.text, (headers, path)
                if not path.startswith("/api/events"):  # They begin before the gateway has been asked.
                    assert answer.status_code == 401, (headers, path)


@pytest.mark.slow
async def test_page_hears_and_sees_all_though_the_gateway_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "LONGEST_PAUSE_SECONDS", 0.25)
    server = KillableServer(tmp_path)
    server.start()
    try:
        async with studio(server.address) as page:
            id = await page.create("ambient", 600)
            told = follow(page.http, id)
            assert (await anext(told))[0] == "message"
            async with page.http.stream("GET", f"/api/generations/{id}/live?level=LIVE") as response:
                attempt = response.headers["dgx-music-attempt"]
                parts = response.aiter_bytes()
                await anext(parts)
                server.kill()
                with pytest.raises(httpx2.RemoteProtocolError):  # It is cut off, by which the page knows.
                    await _rest_of(parts)
            refused = await page.http.post("/api/ListGenerations", json={})
            error = refused.json()["error"]
            assert (refused.status_code, error["code"], error["reason"]) == (503, "UNAVAILABLE", "CONNECTION_LOST")
            assert int(refused.headers["retry-after"]) >= 1
            problems = [name async for name, _ in _until(told, "problem")]
            assert problems[-1] == "problem"
            await asyncio.to_thread(server.start)
            # The same stream of events goes on, without the page's doing.
            while (event := await anext(told))[0] != "message":
                pass
            await page.call("CancelGeneration", id=id)
            assert [name async for name, _ in told][-2:] == ["end", "done"]
            assert event[1]["generation"]["id"] == id
            assert attempt == "1"
    finally:
        server.kill()


async def _rest_of(parts: AsyncIterator[bytes]) -> bytes:
    return b"".join([part async for part in parts])


async def _until(told: AsyncIterator[tuple[str, object]], name: str) -> AsyncIterator[tuple[str, object]]:
    async for event in told:
        yield event
        if event[0] == name:
            return


@pytest.mark.slow
async def test_listener_goes_on_from_its_frame_after_the_connection_broke(tmp_path: Path) -> None:
    async with (
        embedded_services(tmp_path, public_address="127.0.0.1:0") as services,
        forwarding_to(services.public_address) as path,
        studio(path.address) as page,
    ):
        id = await page.create("house", 60)
        heard, cuts = b"", 0
        while True:
            start = len(heard) // 8
            url = f"/api/generations/{id}/live?level=LIVE&start_frame={start}"
            try:
                async with page.http.stream("GET", url) as response:
                    if response.status_code == 503:  # The new connection to the gateway is not there yet.
                        continue
                    assert response.status_code == 200
                    assert response.headers["dgx-music-start-frame"] == str(start)
                    async for part in response.aiter_bytes():
                        heard += part
                        if cuts < 3 and len(heard) > (cuts + 1) * 2_000_000:
                            cuts += 1
                            path.cut()
                break
            except httpx2.RemoteProtocolError:
                heard = heard[: len(heard) // 8 * 8]
        async with connect(services.public_address) as music:
            request = StreamAudioRequest(generation_id=id, level=AUDIO_LEVEL_LIVE)
            all_of_it = b"".join([part.chunk.pcm async for part in music.StreamAudio(request, timeout=TIMEOUT_SECONDS)])
        assert cuts == 3
        assert heard == all_of_it


@pytest.mark.slow
async def test_stopped_studio_lets_listeners_go_at_once(tmp_path: Path) -> None:
    with captured_logs("json") as log:
        async with embedded_services(tmp_path) as services:
            async with studio(services.address, grace_seconds=60) as page:
                id = await page.create("ambient", 3600)
                readers = [
                    await _open(page.port, f"/api/{path}") for path in (f"generations/{id}/live", f"events?id={id}")
                ]
                started = time.monotonic()
            assert time.monotonic() - started < 30
            cancel = CancelGenerationRequest(id=id)
            await services.music.CancelGeneration(cancel, timeout=TIMEOUT_SECONDS)  # Else it is handed back, in 10 s.
            for reader, writer in readers:
                with suppress(ConnectionError):
                    assert not (await reader.read()).endswith(b"0\r\n\r\n")  # The end of a body in chunks.
                writer.close()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert not [line for line in lines if line["level"] in ("error", "critical")], lines


async def _open(port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Asks for a stream, and returns once it has begun."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT_SECONDS)).startswith(b"HTTP/1.1 200")
    assert await asyncio.wait_for(reader.read(1), TIMEOUT_SECONDS)
    return reader, writer


@pytest.mark.slow
async def test_command_runs_beside_another_or_without_and_ends_by_a_signal(tmp_path: Path) -> None:
    async with studio_process(tmp_path) as alone:
        id = await alone.generate("house", 0.3)
        async with studio_process(tmp_path) as beside:  # It joins the services of the first.
            assert [one["id"] for one in (await beside.call("ListGenerations"))["generations"]] == [id]
            watched = follow(beside.http, await beside.create("ambient", 3600))
            assert (await anext(watched))[0] == "message"
            await beside.call("CancelGeneration", id=(await beside.call("ListGenerations"))["generations"][0]["id"])
