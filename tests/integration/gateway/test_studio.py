"""The Studio's server, asked as its page asks, with the real services behind it."""

from __future__ import annotations

import asyncio
import io
import tempfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
import soundfile

from dgx_music.access.v1 import access_pb2 as access
from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL, AUDIO_LEVEL_LIVE
from dgx_music.export.v1.export_pb2 import DownloadRequest, StreamAudioRequest
from gateway.studio import clip_reception
from gateway.studio.page_security import HEADERS
from tests.support.access_services import SERVICE_TOKEN
from tests.support.embedded_services import EmbeddedServices, embedded_services
from tests.support.studio import TIMEOUT_SECONDS, Studio, events, follow, studio
from tests.support.tls_files import make_tls_files

UNKNOWN = "11111111-2222-4333-8444-55555555aaaa"
PROMPT = 'a "take" / of 猫🎹 & <b>bold</b>'


@pytest.fixture
async def page(all_services: EmbeddedServices) -> AsyncIterator[Studio]:
    async with studio(all_services.address) as served:
        yield served


async def samples(services: EmbeddedServices, id: str, level: int, start_frame: int = 0) -> bytes:
    """Returns what a client of the gateway hears."""
    request = StreamAudioRequest(generation_id=id, level=level, start_frame=start_frame)  # type: ignore[arg-type]
    return b"".join([part.chunk.pcm async for part in services.music.StreamAudio(request, timeout=TIMEOUT_SECONDS)])


async def error_of(response: httpx2.Response) -> tuple[int, str, str, str | None]:
    error = response.json()["error"]
    assert error["message"]
    return response.status_code, error["code"], error["reason"], error["field"]


async def test_page_is_served_with_all_that_keeps_it_safe(page: Studio) -> None:
    index = await page.http.get("/")
    assert 'id="compose"' in index.text
    for path in ("/", "/static/js/main.js", "/static/none.js", "/api/studio", "/api/none", "/health"):
        response = await page.http.get(path)
        assert {name: response.headers[name] for name in HEADERS} == HEADERS, path
        is_known = path not in ("/static/none.js", "/api/none")
        assert response.status_code == 200 if is_known else response.status_code in (404, 405)
    script = await page.http.get("/static/js/main.js")
    assert script.headers["content-type"].startswith("text/javascript")
    again = await page.http.get("/static/js/main.js", headers={"if-none-match": script.headers["etag"]})
    assert again.status_code == 304
    for outside in (
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static//etc/passwd",
    ):
        assert (await page.http.get(outside)).status_code == 404
    about = (await page.http.get("/api/studio")).json()
    assert (about["requires_token"], about["signed_in"], "mp3" in about["formats"]) == (False, True, True)


async def test_take_is_watched_and_heard_sample_for_sample(page: Studio, all_services: EmbeddedServices) -> None:
    id = await page.create(PROMPT, 2)
    async with page.http.stream("GET", f"/api/generations/{id}/live", params={"level": "LIVE"}) as response:
        heard = b"".join([part async for part in response.aiter_bytes()])
    told = {name: response.headers[f"dgx-music-{name}"] for name in ("level", "attempt", "channels", "sample-rate")}
    assert told == {"level": "LIVE", "attempt": "1", "channels": "2", "sample-rate": "32000"}
    assert response.headers["dgx-music-expected-frames"] == "64000"
    assert heard == await samples(all_services, id, AUDIO_LEVEL_LIVE)
    *changes, end, done = await events(page.http, id)
    assert changes[-1][1]["generation"]["state"] == "GENERATION_STATE_COMPLETED"
    assert [end, done] == [("end", {"id": id}), ("done", {})]
    assert changes[-1][1]["generation"]["client"] == "studio 127.0.0.1"
    final = await page.http.get(f"/api/generations/{id}/live", params={"start_frame": 1000, "level": "FINAL"})
    assert final.content == await samples(all_services, id, AUDIO_LEVEL_FINAL, 1000)
    assert final.headers["dgx-music-start-frame"] == "1000"
    beyond = await page.http.get(f"/api/generations/{id}/live?start_frame=64001")
    assert (await error_of(beyond))[:2] == (416, "OUT_OF_RANGE")
    for query in ("start_frame=-1", "start_frame=1e3", f"start_frame={'9' * 5000}", "level=BEST"):
        refused = await page.http.get(f"/api/generations/{id}/live?{query}")
        assert await error_of(refused) == (400, "INVALID_ARGUMENT", "INVALID_FIELD", query.partition("=")[0])


async def test_leaving_the_page_cancels_nothing_and_its_button_does(page: Studio) -> None:
    id = await page.create("techno", 3600)
    async with page.http.stream("GET", f"/api/generations/{id}/live") as response:
        await anext(response.aiter_bytes())
    stream = follow(page.http, id)
    assert (await anext(stream))[1]["generation"]["state"] == "GENERATION_STATE_PROCESSING"
    await stream.aclose()
    listener = asyncio.create_task(page.http.get(f"/api/generations/{id}/live?level=LIVE"))
    watcher = asyncio.create_task(events(page.http, id))
    assert (await page.call("GetGeneration", id=id))["generation"]["state"] == "GENERATION_STATE_PROCESSING"
    await page.call("CancelGeneration", id=id)
    assert [name for name, _ in await watcher][-2:] == ["end", "done"]
    with pytest.raises(httpx2.RemoteProtocolError):  # Cut off: not all has been heard.
        await listener
    gone = await page.http.get(f"/api/generations/{id}/live")
    assert (await error_of(gone))[:3] == (409, "FAILED_PRECONDITION", "GENERATION_CANCELLED")


async def test_many_takes_are_watched_over_one_connection(page: Studio) -> None:
    ids = [await page.create("house", 0.2) for _ in range(5)]
    told = await events(page.http, *ids, UNKNOWN)
    ended = [content["id"] for name, content in told if name == "end"]
    assert sorted(ended) == sorted([*ids, UNKNOWN])
    [problem] = [content for name, content in told if name == "problem"]
    assert (problem["id"], problem["error"]["code"]) == (UNKNOWN, "NOT_FOUND")
    completed = {
        content["generation"]["id"]
        for name, content in told
        if name == "message" and content["generation"]["state"] == "GENERATION_STATE_COMPLETED"
    }
    assert completed == set(ids)
    for query in ("", "?" + "&".join(f"id={number}" for number in range(65))):
        assert await error_of(await page.http.get(f"/api/events{query}")) == (
            400,
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "id",
        )


async def test_errors_name_the_field_as_the_contract_does(page: Studio) -> None:
    async def refusal(method: str, content: str, kind: str = "application/json") -> tuple[int, str, str, str | None]:
        return await error_of(await page.http.post(f"/api/{method}", content=content, headers={"content-type": kind}))

    invalid = (400, "INVALID_ARGUMENT", "INVALID_FIELD")
    assert await refusal("CreateGeneration", '{"prompt": ""}') == (*invalid, "prompt")
    batch = '{"requests": [{"prompt": "a"}, {"prompt": "a", "durationSeconds": -1}]}'
    assert await refusal("BatchCreateGenerations", batch) == (*invalid, "requests[1].duration_seconds")
    assert await refusal("CreateGeneration", '{"prompt": "a", "durationSeconds": "x"}') == (
        *invalid,
        "duration_seconds",
    )
    nested = '{"conditioning": {"sections": [{"startSeconds": []}]}}'
    assert await refusal("CreateGeneration", nested) == (*invalid, "conditioning.sections.start_seconds")
    for body in ("5", "{", '{"prmpt": ""}', "[" * 5000, '"\\ud800"'):
        assert await refusal("CreateGeneration", body) == (*invalid, "body")
    assert (await refusal("CreateGeneration", "{}", "text/plain"))[0] == 415
    assert (await refusal("CreateGeneration", " " * (1 << 20) + "{}"))[0] == 413
    for method in ("CreateToken", "Cleanup", "StreamAudio", "__class__"):
        assert (await refusal(method, "{}"))[:3] == (404, "NOT_FOUND", "METHOD_NOT_FOUND")
    assert await refusal("CreateGeneration", '{"output": {"format": "NONE"}}') == (*invalid, "output.format")
    assert (await page.call("ListGenerations"))["generations"] == []


async def test_file_is_sent_whole_in_parts_and_in_other_formats(page: Studio, all_services: EmbeddedServices) -> None:
    id = await page.generate(PROMPT, 1)
    stored = b"".join([part.data async for part in all_services.music.Download(DownloadRequest(generation_id=id))])
    path = f"/api/generations/{id}/file"
    whole = await page.http.get(path)
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, stored, "audio/wav")
    size, tag = len(stored), whole.headers["etag"]
    for asked, part in (
        ("bytes=0-", stored),
        ("bytes=100-199", stored[100:200]),
        ("bytes=-10", stored[-10:]),
        (f"bytes={size - 1}-{size * 2}", stored[-1:]),
        (f"bytes=-{size * 2}", stored),
    ):
        got = await page.http.get(path, headers={"range": asked})
        assert (got.status_code, got.content) == (206, part), asked
        first = size - len(part) if asked.startswith("bytes=-") else int(asked[6:].partition("-")[0])
        assert got.headers["content-range"] == f"bytes {first}-{first + len(part) - 1}/{size}"
    for nothing in (f"bytes={size}-", "bytes=-0"):
        beyond = await page.http.get(path, headers={"range": nothing})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    for unknown in ("bytes=5-2", "bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=0-1"):
        kept = {"if-range": '"other"'} if unknown == "bytes=0-1" else {}
        assert (await page.http.get(path, headers={"range": unknown, **kept})).status_code == 200, unknown
    assert (await page.http.get(path, headers={"range": "bytes=1-2", "if-range": tag})).content == stored[1:3]
    assert (await page.http.get(path, headers={"if-none-match": tag})).status_code == 304
    head = await page.http.head(path, params={"download": "1"})
    assert (head.content, head.headers["content-length"]) == (b"", str(size))
    name = head.headers["content-disposition"]
    assert name.startswith('attachment; filename="2')
    assert "%E7%8C%AB%F0%9F%8E%B9" in name
    assert "<" not in name

    mp3 = await page.http.get(path, params={"format": "mp3"})
    with soundfile.SoundFile(io.BytesIO(mp3.content)) as file:
        assert (mp3.headers["content-type"], file.format) == ("audio/mpeg", "MP3")
    assert (await page.http.get(path, params={"format": "wav"})).headers["etag"] == tag  # It is one already.
    assert (await error_of(await page.http.get(path, params={"format": "exe"})))[3] == "format"
    for none in (UNKNOWN, "..%2f..%2fetc%2fpasswd", "x"):
        assert (await page.http.get(f"/api/generations/{none}/file")).status_code in (400, 404)

    midi = await page.http.get(f"/api/generations/{id}/midi")
    assert (midi.content[:4], midi.headers["dgx-music-origin"]) == (b"MThd", "COMPOSED")
    stems = await page.http.get(f"/api/generations/{id}/stems")
    with zipfile.ZipFile(io.BytesIO(stems.content)) as archive:
        assert archive.testzip() is None
        read = [soundfile.read(io.BytesIO(archive.read(entry)), dtype="float32") for entry in archive.infolist()]
    assert {(rate, data.shape) for data, rate in read} == {(32_000, (32_000, 2))}
    live = np.frombuffer(await samples(all_services, id, AUDIO_LEVEL_LIVE), "<f4").reshape(-1, 2)
    assert np.abs(sum(data for data, _ in read)).max() > 0
    assert live.shape == (32_000, 2)


async def test_session_is_that_of_the_command_line(
    page: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await page.generate(PROMPT, 0.5), await page.generate("techno at 130 BPM", 0.5)]
    query = {"id": ids, "format": ["reaper", "dawproject"], "midi": "1"}
    session = await page.http.get("/api/session", params=query)
    assert (session.status_code, session.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(session.content)) as archive:
        assert archive.testzip() is None
        [root] = {name.partition("/")[0] for name in archive.namelist()}
        suffixes = sorted(Path(name).suffix for name in archive.namelist())
    assert root.endswith(" +1")
    assert (suffixes.count(".wav"), suffixes.count(".rpp"), suffixes.count(".dawproject")) == (2, 1, 1)
    assert (".mid" in suffixes, ".ardour" in suffixes) == (True, False)
    for wrong, field in (({"id": []}, "id"), ({"id": ids, "format": "logic"}, "format"), ({"id": "x" * 99}, None)):
        refused = await error_of(await page.http.get("/api/session", params=wrong))
        assert (refused[0], refused[3]) in ((400, field), (400, "id"))
    assert (await page.http.get("/api/session", params={"id": UNKNOWN})).status_code == 404
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    unwritable = await page.http.get("/api/session", params=query)
    assert unwritable.status_code == 503
    assert "TMPDIR" in unwritable.json()["error"]["message"]


async def test_uploaded_clip_is_what_was_sent(page: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = io.BytesIO()
    soundfile.write(audio, np.sin(np.arange(48_000) / 20), 48_000, format="FLAC")
    octets = {"content-type": "application/octet-stream"}

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(audio.getvalue()), 5000):
            yield audio.getvalue()[start : start + 5000]

    clip = (await page.http.post("/api/clips", content=parts(), headers={"content-type": "audio/flac"})).json()
    assert (clip["frames"], clip["sampleRateHz"], clip["sourceFormat"]) == ("48000", 48_000, "FLAC, 16-bit")
    heard = await page.http.get(f"/api/generations/{clip['clipId']}/live")
    assert (heard.headers["dgx-music-level"], len(heard.content)) == ("FINAL", 4 * 48_000)
    for broken in (b"", b"no audio", b"fLaC" + b"\0" * (3 << 20), audio.getvalue()[:9000]):
        refused = await error_of(await page.http.post("/api/clips", content=broken, headers=octets))
        assert refused == (400, "INVALID_ARGUMENT", "INVALID_FIELD", "data")
    form = await page.http.post("/api/clips", content=b"x", headers={"content-type": "multipart/form-data"})
    assert form.status_code == 415

    monkeypatch.setattr(clip_reception, "STALL_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
    writer.write(
        b"POST /api/clips HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/flac\r\nContent-Length: 99\r\n\r\nfLaC"
    )
    assert (await asyncio.wait_for(reader.readline(), TIMEOUT_SECONDS)).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_token_is_kept_where_no_script_finds_it(tmp_path: Path) -> None:
    tls = make_tls_files(tmp_path / "tls")
    secure = {**tls.server_settings(), "require_tokens": True, "client_trusts": tls.ca}
    async with embedded_services(tmp_path / "data", service_token=SERVICE_TOKEN) as services:
        made = await services.music.CreateToken(
            access.CreateTokenRequest(name="radio", scope=access.SCOPE_READ), timeout=TIMEOUT_SECONDS
        )
        async with studio(services.address, **secure) as page:
            about = (await page.http.get("/api/studio")).json()
            assert (about["requires_token"], about["signed_in"]) == (True, False)
            assert (await page.http.get("/")).status_code == 200
            for path in ("/api/events?id=a", "/api/generations/a/file", "/api/generations/a/commands"):
                assert (await error_of(await page.http.get(path)))[:2] == (401, "UNAUTHENTICATED")
            unread = await page.http.post("/api/clips", content=b"x" * (1 << 20), headers={"content-type": "audio/wav"})
            assert unread.status_code == 401
            for wrong in ("dgxm_x", f"dgxm_abcdefgh_{'x' * 43}", "x", 5, None):
                refused = await page.http.post("/api/sign-in", json={"token": wrong})
                assert refused.status_code in (400, 401), wrong
                assert "set-cookie" not in refused.headers
            signed_in = await page.http.post("/api/sign-in", json={"token": f" {made.secret}\n"})
            cookie = signed_in.headers["set-cookie"].lower()
            assert all(part in cookie for part in ("httponly", "samesite=strict", "secure", "path=/api"))
            assert "max-age" not in cookie
            assert (await page.http.get("/api/studio")).json()["signed_in"] is True
            assert (await page.call("ListGenerations"))["generations"] == []
            forbidden = await page.http.post("/api/CreateGeneration", json={"prompt": "a"})
            assert (await error_of(forbidden))[:2] == (403, "PERMISSION_DENIED")
            commands = await page.http.get(f"/api/generations/{UNKNOWN}/commands")
            assert commands.status_code == 404
            await page.http.post("/api/sign-out", json={})
            assert (await page.http.post("/api/ListGenerations", json={})).status_code == 401
