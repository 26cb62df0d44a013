"""The MCP server, called by the official client: as a process on standard streams, as assistants start it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import AudioContent, CallToolResult, TextContent, TextResourceContents

from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.command_line import DGX_MUSIC, environment
from tests.support.embedded_services import EmbeddedServices

TIMEOUT_SECONDS = 60.0


@asynccontextmanager
async def assistant(services: EmbeddedServices, data_dir: Path) -> AsyncIterator[Client]:
    """Yields a client of `dgx-music mcp`, which uses the services of this process."""
    parameters = StdioServerParameters(
        command=str(DGX_MUSIC),
        args=["--data-dir", str(data_dir), "mcp"],
        env=environment(DGX_MUSIC_GATEWAY_ADDRESS=services.address),
    )
    with (data_dir / "mcp.log").open("w") as log:
        async with Client(stdio_client(parameters, errlog=log), read_timeout_seconds=TIMEOUT_SECONDS) as client:
            yield client


def facts(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def error_of(result: CallToolResult) -> str:
    assert result.is_error
    [content] = result.content
    assert isinstance(content, TextContent)
    return content.text


def seconds_of(audio: object) -> float:
    assert isinstance(audio, AudioContent)
    assert audio.mime_type == "audio/mpeg"
    with soundfile.SoundFile(io.BytesIO(base64.b64decode(audio.data))) as file:
        assert (file.format, file.channels) == ("MP3", 1)
        return len(file.read()) / file.samplerate


async def wait_for_state(
    services: EmbeddedServices, generation_id: str, state: storage.GenerationState.ValueType
) -> None:
    request = storage.WatchGenerationRequest(id=generation_id)
    watch = services.music.WatchGeneration(request, timeout=TIMEOUT_SECONDS)
    async for change in watch:
        if change.generation.state == state:
            watch.cancel()
            return
    raise AssertionError(f"generation {generation_id} never was {state}")


async def test_assistant_generates_listens_and_looks_around(all_services: EmbeddedServices, tmp_path: Path) -> None:
    async with assistant(all_services, tmp_path) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"generate", "extend", "repaint", "listen", "list", "show", "cancel", "models"}
        assert all(tool.description and tool.title for tool in tools.values())

        reported: list[float] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            reported.append(progress)

        request = {"prompt": "house at 124 BPM", "duration_seconds": 8, "seed": 7, "format": "flac", "with_audio": True}
        result = await client.call_tool("generate", request, progress_callback=note)
        generated = facts(result)
        assert (generated["state"], generated["seed"], generated["tempo_bpm"]) == ("completed", 7, 124)
        assert generated["loudness_lufs"] == pytest.approx(-16, abs=0.1)
        assert soundfile.info(generated["file"]).format == "FLAC"
        assert seconds_of(result.content[-1]) == pytest.approx(8, abs=0.2)
        assert reported == sorted(set(reported))
        assert reported[-1] == 1

        [heard] = (await client.call_tool("listen", {"id": generated["id"], "seconds": 3})).content
        assert seconds_of(heard) == pytest.approx(3, abs=0.2)
        assert facts(await client.call_tool("show", {"id": generated["id"]})) == generated
        assert facts(await client.call_tool("list", {"search": "HOUSE"}))["generations"] == [generated]
        assert facts(await client.call_tool("list", {"state": "failed"}))["generations"] == []
        [model] = facts(await client.call_tool("models"))["models"]
        assert (model["name"], model["is_default"]) == ("sketch", True)
        [resource] = (await client.read_resource(f"dgx-music://generations/{generated['id']}")).contents
        assert isinstance(resource, TextResourceContents)
        assert json.loads(resource.text)["file"] == generated["file"]

        assert "must be at most 3600 s" in error_of(
            await client.call_tool("generate", {"prompt": "a", "duration_seconds": 9999})
        )
        loop = facts(await client.call_tool("generate", {"prompt": "lo-fi at 120 BPM", "loop_bars": 1}))
        assert loop["duration_seconds"] == 2
        for tool, arguments in (("extend", {"seconds": 2}), ("repaint", {"start_seconds": 1, "end_seconds": 2})):
            result = await client.call_tool(tool, {"id": generated["id"], **arguments})
            assert "model 'sketch' can't continue audio" in error_of(result)
        assert "can't follow a melody" in error_of(
            await client.call_tool("generate", {"prompt": "a", "melody": generated["id"]})
        )
        assert "must be a UUID" in error_of(await client.call_tool("show", {"id": "none"}))
        assert "COMPLETED" in error_of(await client.call_tool("cancel", {"id": generated["id"]}))
        with pytest.raises(MCPError, match="there is no generation"):
            await client.read_resource(f"dgx-music://generations/{'0' * 8}-0000-4000-8000-{'0' * 12}")


async def test_what_ends_a_call_cancels_its_generation(all_services: EmbeddedServices, tmp_path: Path) -> None:
    async def begin(client: Client, prompt: str) -> tuple[asyncio.Task[CallToolResult], str]:
        """Starts a call that lasts, and returns it with the id of its generation, which is being processed."""
        processing = asyncio.Event()

        async def note(progress: float, total: float | None, message: str | None) -> None:
            if progress > 0:
                processing.set()

        request = {"prompt": prompt, "duration_seconds": 3600}
        call = asyncio.create_task(client.call_tool("generate", request, progress_callback=note))
        await asyncio.wait_for(processing.wait(), TIMEOUT_SECONDS)
        return call, facts(await client.call_tool("list", {"search": prompt}))["generations"][0]["id"]

    async with assistant(all_services, tmp_path) as client:
        call, cancelled_by_client = await begin(client, "one")
        call.cancel()
        await wait_for_state(all_services, cancelled_by_client, storage.GENERATION_STATE_CANCELLED)

        call, cancelled_by_tool = await begin(client, "two")
        assert facts(await client.call_tool("cancel", {"id": cancelled_by_tool}))["state"] == "cancelled"
        assert "was cancelled" in error_of(await call)

        call, cancelled_by_end = await begin(client, "three")
        call.add_done_callback(lambda call: call.cancelled() or call.exception())
    await wait_for_state(all_services, cancelled_by_end, storage.GENERATION_STATE_CANCELLED)


async def test_only_the_protocol_is_on_standard_output(all_services: EmbeddedServices, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(DGX_MUSIC, "--debug", "--data-dir", tmp_path, "mcp"),
        env=environment(DGX_MUSIC_GATEWAY_ADDRESS=all_services.address),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    for message in (
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "show", "arguments": {"id": "none"}}},
    ):
        process.stdin.write(json.dumps(message).encode() + b"\n")
    try:
        assert process.stdout is not None
        lines = [json.loads(await asyncio.wait_for(process.stdout.readline(), TIMEOUT_SECONDS)) for _ in range(2)]
        process.terminate()  # While standard input is open and idle.
        rest, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
    assert [line["id"] for line in lines] == [1, 2]
    assert lines[0]["result"]["serverInfo"]["name"] == "dgx-music"
    assert rest == b""
    assert process.returncode == 143


@pytest.mark.slow
async def test_assistant_that_no_longer_reads_ends_the_server(all_services: EmbeddedServices, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(DGX_MUSIC, "--data-dir", tmp_path, "mcp"),
        env=environment(DGX_MUSIC_GATEWAY_ADDRESS=all_services.address),
        stdin=asyncio.subprocess.PIPE,
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    os.close(reading)
    assert process.stdin is not None
    assert process.stderr is not None
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        said = await asyncio.wait_for(process.stderr.read(), TIMEOUT_SECONDS)  # While standard input stays open.
        assert await process.wait() == 141
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert said.decode() == "error: can't write to standard output: it was closed by its reader\n"
