"""The HTTP endpoints, called by OpenAI's client and by plain HTTP, with the real services behind them."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest
import soundfile

from dgx_music.access.v1 import access_pb2 as access
from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE
from dgx_music.errors import FailedPrecondition
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.http.config import HttpSettings
from gateway.http.server import serve_http
from gateway.web.server import bind
from tests.support.access_services import SERVICE_TOKEN
from tests.support.command_line import DGX_MUSIC, environment
from tests.support.embedded_services import EmbeddedServices, embedded_services
from tests.support.tls_files import TlsFiles, make_tls_files

ROOT = Path(__file__).parents[3]
TIMEOUT_SECONDS = 60.0
RATE_HZ, CHANNELS = 32_000, 2
FORMATS = {"wav": "WAV", "mp3": "MP3", "flac": "FLAC", "opus": "OGG"}
"""Format of a response → how soundfile calls the file."""


@asynccontextmanager
async def http_client(services: EmbeddedServices, **settings: object) -> AsyncIterator[httpx2.AsyncClient]:
    """Yields a client of HTTP endpoints that are served while the block runs."""
    verify: ssl.SSLContext | bool = True
    if (ca := settings.pop("client_trusts", None)) is not None:
        verify = ssl.create_default_context(cafile=str(ca))
    configured = HttpSettings.model_validate({"http_listen": "127.0.0.1:0", "grace_seconds": 1, **settings})
    async with (
        serve_http(services.address, configured) as url,
        httpx2.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, verify=verify) as client,
    ):
        yield client


@pytest.fixture
async def http(all_services: EmbeddedServices) -> AsyncIterator[httpx2.AsyncClient]:
    async with http_client(all_services) as client:
        yield client


async def newest(services: EmbeddedServices) -> storage.Generation | None:
    request = storage.ListGenerationsRequest(page_size=1)
    listed = (await services.music.ListGenerations(request, timeout=TIMEOUT_SECONDS)).generations
    return listed[0] if listed else None


async def wait_until_finished(services: EmbeddedServices, generation_id: str) -> storage.GenerationState.ValueType:
    request = storage.WatchGenerationRequest(id=generation_id)
    states = [change.generation.state async for change in services.music.WatchGeneration(request, timeout=60)]
    return states[-1]


async def test_openai_client_lists_models_and_gets_each_format(http: httpx2.AsyncClient) -> None:
    async with openai.AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="none", http_client=http) as client:
        assert [model.id async for model in client.models.list()] == ["sketch"]
        assert (await client.models.retrieve("sketch")).id == "sketch"

        async def create(name: str) -> bytes:
            response = await client.audio.speech.create(
                model="tts-1",
                voice="alloy",
                input="house at 124 BPM",
                response_format=name,  # type: ignore[arg-type]
                extra_body={"duration_seconds": 0.5, "seed": 1},
            )
            return response.content

        *files, aac, pcm = await asyncio.gather(*map(create, [*FORMATS, "aac", "pcm"]))
        for name, content in zip(FORMATS, files, strict=True):
            with soundfile.SoundFile(io.BytesIO(content)) as file:
                assert file.format == FORMATS[name]
                assert file.frames / file.samplerate == pytest.approx(0.5, abs=0.05)
        assert aac[4:8] == b"ftyp"
        assert len(pcm) == 0.5 * 24_000 * 2  # OpenAI's: 24 kHz, mono, 16 bits.

        with pytest.raises(openai.NotFoundError) as missing:
            await client.audio.speech.create(model="none", voice="alloy", input="house")
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as invalid:
            await client.audio.speech.create(
                model="", voice="alloy", input="house", extra_body={"duration_seconds": 1e6}
            )
        assert invalid.value.param == "duration_seconds"


async def test_live_wav_has_the_samples_as_generated(http: httpx2.AsyncClient, all_services: EmbeddedServices) -> None:
    body = {"input": "techno at 130 BPM", "response_format": "wav", "stream_format": "audio", "duration_seconds": 4}
    response = await http.post("/v1/audio/speech", json=body)
    generation_id = response.headers["dgx-music-generation"]
    assert await wait_until_finished(all_services, generation_id) == storage.GENERATION_STATE_COMPLETED
    samples, rate = soundfile.read(io.BytesIO(response.content), dtype="int16")
    request = export.StreamAudioRequest(generation_id=generation_id, level=AUDIO_LEVEL_LIVE)
    pcm = b"".join([part.chunk.pcm async for part in all_services.music.StreamAudio(request, timeout=TIMEOUT_SECONDS)])
    expected = np.rint(np.clip(np.frombuffer(pcm, "<f4").reshape(-1, CHANNELS), -1, 1) * 32767)
    assert rate == RATE_HZ
    assert np.array_equal(samples, expected)
    with soundfile.SoundFile(io.BytesIO(response.content)) as file:
        assert file.comment == f"AI-generated music; generation={generation_id}; model=sketch"

    events = await http.post("/v1/audio/speech", json={**body, "stream_format": "sse", "duration_seconds": 0.5})
    parts = [json.loads(line.removeprefix("data: ")) for line in events.text.splitlines() if line]
    assert {part["type"] for part in parts[:-1]} == {"speech.audio.delta"}
    assert parts[-1]["type"] == "speech.audio.done"


async def test_caller_who_leaves_cancels_the_generation(
    http: httpx2.AsyncClient, all_services: EmbeddedServices
) -> None:
    body = {"input": "techno", "duration_seconds": 3600}
    live = {**body, "response_format": "wav", "stream": True}
    async with http.stream("POST", "/v1/audio/speech", json=live) as response:
        parts = response.aiter_bytes()
        assert (await anext(parts))[:4] == b"RIFF"
        generation_id = response.headers["dgx-music-generation"]
        got = await all_services.music.GetGeneration(storage.GetGenerationRequest(id=generation_id), timeout=60)
        assert got.generation.state == storage.GENERATION_STATE_PROCESSING  # It was heard while it was generated.
        assert got.generation.client == "http 127.0.0.1"
    assert await wait_until_finished(all_services, generation_id) == storage.GENERATION_STATE_CANCELLED

    waiting = asyncio.create_task(http.post("/v1/audio/speech", json=body))
    created = await newest(all_services)
    while created is None or created.id == generation_id:  # There is nothing that tells of a new generation.
        await asyncio.wait([waiting], timeout=0.02)
        created = await newest(all_services)
    waiting.cancel()
    assert await wait_until_finished(all_services, created.id) == storage.GENERATION_STATE_CANCELLED


async def test_endpoints_of_elevenlabs_localai_and_vllm(
    http: httpx2.AsyncClient, all_services: EmbeddedServices
) -> None:
    elevenlabs = {"xi-api-key": "none"}
    text = {"text": "house", "model_id": "eleven_text_to_sound_v2", "duration_seconds": 0.5, "prompt_influence": 0.5}
    music = {"prompt": "house", "music_length_ms": 500}
    responses = await asyncio.gather(
        http.post("/v1/sound-generation", json=text, headers=elevenlabs),
        http.post("/v1/sound-generation", json={**text, "model_id": "sketch", "bpm": 124, "keyscale": "A minor"}),
        http.post("/v1/music", json=music, params={"output_format": "opus_48000_96"}),
        http.post("/v1/music/stream", json=music, params={"output_format": "pcm_44100"}),
        http.post("/v1/audio/generate", json={"input": "house", "audio_length": 0.5, "negative_prompt": "noise"}),
    )
    assert [response.status_code for response in responses] == [200] * 5
    sound, localai, opus, pcm, generated = (response.content for response in responses)
    rates = {}
    for content in (sound, localai, opus, generated):
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rates[content] = (file.format, file.samplerate)
    assert list(rates.values()) == [("MP3", 44_100), ("WAV", RATE_HZ), ("OGG", 48_000), ("WAV", RATE_HZ)]
    assert len(pcm) == 0.5 * 44_100 * CHANNELS * 2
    ids = [response.headers["dgx-music-generation"] for response in responses]
    rows = [
        (await all_services.music.GetGeneration(storage.GetGenerationRequest(id=one), timeout=60)).generation
        for one in ids
    ]
    assert rows[1].prompt == "house, at 124 BPM, in A minor"
    assert rows[0].sampling.guidance_scale == 5.0
    assert [row.duration_seconds for row in rows] == [0.5] * 5


async def test_requests_that_are_refused(http: httpx2.AsyncClient, all_services: EmbeddedServices) -> None:
    async def refusal(path: str, **request: object) -> tuple[int, str | None, str | None]:
        response = await http.request("POST" if "json" in request or "content" in request else "GET", path, **request)  # type: ignore[arg-type]
        error = response.json()["error"]
        assert error["message"]
        return response.status_code, error["code"], error["param"]

    speech = "/v1/audio/speech"
    assert await refusal(speech, json={}) == (400, "invalid_field", "input")
    assert await refusal(speech, json={"input": "a", "speed": 2}) == (400, "invalid_field", "speed")
    assert await refusal(speech, json={"input": "a\0"}) == (400, "invalid_field", "input")
    assert await refusal("/v1/music", json={"composition_plan": {}, "prompt": ""}) == (400, "invalid_field", "prompt")
    assert await refusal("/v1/sound-generation", json={"text": "a", "loop": True}) == (400, "invalid_field", "loop")
    assert await refusal("/v1/music?output_format=ulaw_8000", json={"prompt": "a"}) == (
        400,
        "invalid_field",
        "output_format",
    )
    form = {"content-type": "text/plain"}  # What a web page may send to any site.
    assert await refusal(speech, content=b'{"input": "a"}', headers=form) == (415, "unsupported_media_type", None)
    large = {"content": b" " * (1 << 20) + b"{}", "headers": {"content-type": "application/json"}}
    assert await refusal(speech, **large) == (413, "request_too_large", None)
    assert await refusal("/v1/models", headers={"host": "rebound.example"}) == (421, "wrong_host", None)
    assert await refusal("/v1/models/none") == (404, "model_not_found", None)
    assert await refusal("/v1/none") == (404, None, None)
    assert await refusal(speech) == (405, None, None)
    token = {"authorization": f"Bearer dgxm_abcdefgh_{'x' * 43}"}
    status, _, _ = await refusal("/v1/models", headers=token)
    assert status == 401
    assert await newest(all_services) is None


async def test_beyond_loopback_rules_tls_and_tokens(tmp_path: Path) -> None:
    tls = make_tls_files(tmp_path / "tls")
    secure = {**tls.server_settings(), "require_tokens": True, "client_trusts": tls.ca}
    async with embedded_services(tmp_path / "data", service_token=SERVICE_TOKEN) as services:
        with pytest.raises(FailedPrecondition, match="DGX_MUSIC_TLS_CERTIFICATE"):
            async with http_client(services, http_listen="0.0.0.0:0"):
                pass
        created = await services.music.CreateToken(
            access.CreateTokenRequest(name="radio", scope=access.SCOPE_READ), timeout=TIMEOUT_SECONDS
        )
        bearer = {"authorization": f"Bearer {created.secret}"}
        async with http_client(services, **secure) as http:
            assert (await http.get("/health")).json() == {"status": "ok"}
            for key in ({}, {"authorization": "Bearer none"}):
                refused = await http.get("/v1/models", headers=key)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
            assert (await http.get("/v1/models", headers=bearer)).json()["data"][0]["id"] == "sketch"
            forbidden = await http.post("/v1/audio/speech", json={"input": "house"}, headers=bearer)
            assert forbidden.status_code == 403
            await require_renewal(http.base_url, tls)
        async with http_client(services, **secure, tls_client_ca=tls.ca) as http:
            with pytest.raises(httpx2.TransportError):
                await http.get("/health")


async def test_gateway_that_requires_tokens(tmp_path: Path) -> None:
    required = {"require_tokens": True, "service_token": SERVICE_TOKEN}
    async with (
        embedded_services(tmp_path, public_address="127.0.0.1:0", **required) as services,
        http_client(services._replace(address=services.public_address), **required) as http,
        http_client(services._replace(address=services.public_address)) as unknown,
    ):
        # The gateway tells its health without a token, but nothing else.
        for front in (http, unknown):
            assert (await front.get("/health")).json() == {"status": "ok"}
        assert (await unknown.get("/v1/models")).status_code == 401
        too_large = await http.post("/v1/music", content=b" " * (2 << 20), headers={"content-type": "application/json"})
        assert too_large.status_code == 401  # The body of a stranger is not even read.


async def require_renewal(url: httpx2.URL, tls: TlsFiles) -> None:
    """Fails unless a certificate that replaces the old one is shown from then on."""

    async def shown() -> bytes:
        context = ssl.create_default_context(cafile=str(tls.ca))
        _, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
        return bytes(certificate)

    before = await shown()
    tls.issue()
    assert await shown() != before


async def test_request_of_two_lengths_hides_no_other(http: httpx2.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    head = "POST /v1/music HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(f"{head}0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answers = (await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS)).decode()
    writer.close()
    assert answers.startswith("HTTP/1.1 400 ")
    assert "two_lengths" in answers
    assert answers.count("HTTP/1.1 ") == 1


async def test_full_queue_says_when_to_try_again(tmp_path: Path) -> None:
    async with embedded_services(tmp_path, max_pending=1) as services, http_client(services) as http:
        request = storage.CreateGenerationRequest(prompt="techno", duration_seconds=3600)
        created = await services.music.CreateGeneration(request, timeout=TIMEOUT_SECONDS)
        refused = await http.post("/v1/music", json={"prompt": "house"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
        assert int(refused.headers["retry-after"]) >= 1
        cancel = storage.CancelGenerationRequest(id=created.generation.id)
        await services.music.CancelGeneration(cancel, timeout=TIMEOUT_SECONDS)


async def test_address_that_cannot_be_bound_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        for address, problem in ((taken, "in use"), ("unix:/tmp/x.sock", "HOST:PORT"), ("192.0.2.1:0", "--listen")):
            settings = HttpSettings.model_validate({"http_listen": address, "allow_insecure_listen": True})
            with pytest.raises(FailedPrecondition, match=problem):
                async with serve_http("127.0.0.1:1", settings):
                    pass


def test_listener_names_its_protocol() -> None:
    with bind("127.0.0.1:0") as listener:  # By which asyncio recognizes TCP, and turns Nagle's algorithm off.
        assert listener.proto == socket.IPPROTO_TCP


async def test_health_tells_that_the_gateway_is_gone(tmp_path: Path) -> None:
    async with embedded_services(tmp_path, ("storage", "gateway")) as services:
        address = services.address
    gone = EmbeddedServices(services.music, services.storage, services.export, address)
    async with http_client(gone) as http:
        response = await http.get("/health")
        assert (response.status_code, response.json()["status"]) == (503, "unavailable")
        assert (await http.get("/v1/models")).status_code == 503


async def test_command_serves_what_the_page_shows_and_ends_cleanly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/http.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    command = [DGX_MUSIC, "--data-dir", tmp_path, "http", "--listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(*command, env=environment(), stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        line = await asyncio.wait_for(read_until_serving(process.stderr), TIMEOUT_SECONDS)
        [url] = json.loads(line)["addresses"]
        await asyncio.to_thread(exec, f"{example.replace('http://127.0.0.1:8080', url)}client.close()", {})
        assert soundfile.info(tmp_path / "house.mp3").duration == pytest.approx(8, abs=0.1)
        process.terminate()
        await process.stderr.read()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def read_until_serving(log: asyncio.StreamReader) -> bytes:
    while line := await log.readline():
        if b'"http://' in line:
            return line
    raise AssertionError("the command ended")
