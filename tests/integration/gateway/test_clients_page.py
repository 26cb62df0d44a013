"""The commands of docs/clients.md, run one after the other as they stand there, against a server with all services."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from dgx_music.access.v1 import access_pb2 as access
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.gateway.v1 import gateway_pb2
from dgx_music.generation.v1 import generation_pb2 as generation
from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.embedded.service_set import ServiceSet
from tests.support.access_services import SERVICE_TOKEN
from tests.support.embedded_services import EmbeddedServices, embedded_services
from tests.support.page_commands import PageCommand, json_messages, page_commands
from tests.support.tls_files import make_tls_files

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/clients.md"
BIN = Path(sys.executable).parent
METHODS = gateway_pb2.DESCRIPTOR.services_by_name["MusicService"].methods_by_name
LOCAL = "127.0.0.1:50050"
TIMEOUT_SECONDS = 60.0
EMPTY = ("DeleteFile", "DeleteGeneration", "GetBeatGrid")
"""Methods whose response says nothing; the music of the page's commands is too short to have a beat."""


class Reader:
    """Someone who follows the page in a folder: runs its commands and puts in the ids that the server returned."""

    def __init__(self, services: EmbeddedServices, folder: Path) -> None:
        self._services, self.folder = services, folder
        self.ids: dict[str, str] = {}
        self.environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

    async def run(self, command: PageCommand) -> list[Message]:
        """Returns the responses that the command printed. A response that does not fit the contract is an error."""
        text = command.text.replace(LOCAL, self._services.public_address)
        for placeholder, value in (await self._ids_for(command)).items():
            text = text.replace(f'"{placeholder}"', f'"{value}"')
        process = await asyncio.create_subprocess_exec(
            "bash", "-o", "pipefail", "-ec", text, cwd=self.folder, env=self.environment, stdout=-1, stderr=-1
        )
        out, problem = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
        assert process.returncode == 0, f"{command.text}\n{problem.decode()}"
        response = GetMessageClass(METHODS[command.method].output_type)
        messages = [json_format.ParseDict(message, response()) for message in json_messages(out.decode())]
        for message in messages:
            self._note_ids(message)
        return messages

    async def _ids_for(self, command: PageCommand) -> dict[str, str]:
        match command.method:
            case "CancelGeneration":
                return {"ID": (await self._create("sketch")).id}
            case "RetryGeneration":
                return {"ID": await self._create_failed()}
            case "CreateComparison":
                return {**self.ids, "OTHER_ID": await self._create_completed()}
        return self.ids

    async def _create(self, model: str) -> storage.Generation:
        """Creates a generation that takes long, or waits forever if no worker has the model."""
        request = storage.CreateGenerationRequest(
            prompt="techno", model_name=model, duration_seconds=3600, sample_rate_hz=32_000, channels=2
        )
        return (await self._services.storage.CreateGeneration(request, timeout=TIMEOUT_SECONDS)).generation

    async def _create_completed(self) -> str:
        request = storage.CreateGenerationRequest(prompt="techno", model_name="sketch", duration_seconds=0.5)
        created = (await self._services.music.CreateGeneration(request, timeout=TIMEOUT_SECONDS)).generation
        watch = storage.WatchGenerationRequest(id=created.id)
        states = [one async for one in self._services.music.WatchGeneration(watch, timeout=TIMEOUT_SECONDS)]
        assert states[-1].generation.state == storage.GENERATION_STATE_COMPLETED
        return created.id

    async def _create_failed(self) -> str:
        created = await self._create("none")
        lease = await self._services.storage.ClaimGeneration(
            storage.ClaimGenerationRequest(worker_id="test", model_names=["none"], lease_seconds=30, wait_seconds=5),
            timeout=TIMEOUT_SECONDS,
        )
        await self._services.storage.FailGeneration(
            storage.FailGenerationRequest(id=created.id, lease_token=lease.lease_token, error_message="a fault"),
            timeout=TIMEOUT_SECONDS,
        )
        return created.id

    def _note_ids(self, message: Message) -> None:
        match message:
            case storage.CreateGenerationResponse():
                self.ids["ID"] = message.generation.id
            case export.RenderResponse():
                self.ids["RENDER_ID"] = message.render_id
            case export.ImportClipResponse():
                self.ids["CLIP_ID"] = message.clip_id
            case access.CreateTokenResponse():
                self.ids["TOKEN_ID"] = message.token.id


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[Reader]:
    folder = tmp_path / "reader"
    folder.mkdir()
    async with embedded_services(tmp_path / "data", public_address="127.0.0.1:0") as services:
        yield Reader(services, folder)


@pytest.mark.skipif(shutil.which("jq") is None, reason="the page's commands need jq")
@pytest.mark.skipif(sys.platform != "linux", reason="the page's commands need GNU split and base64")
async def test_every_command_does_what_the_page_says(reader: Reader) -> None:
    responses: dict[str, list[Message]] = {}
    for command in (command for command in page_commands(PAGE) if not command.uses_tls):
        if command.method == "GetDownloadUrl":  # The library is a folder here.
            with pytest.raises(AssertionError, match='"code": "failed_precondition"'):
                await reader.run(command)
            continue
        responses[command.method] = await reader.run(command)
        if command.method == "Download":
            shutil.copy(reader.folder / "house.wav", reader.folder / "song.wav")

    [*_, watched] = responses["WatchGeneration"]
    [got] = responses["GetGeneration"]
    assert isinstance(watched, storage.WatchGenerationResponse)
    assert isinstance(got, storage.GetGenerationResponse)
    assert watched.generation == got.generation
    assert got.generation.state == storage.GENERATION_STATE_COMPLETED
    assert (reader.folder / "house.wav").stat().st_size == got.generation.file_size_bytes
    assert (reader.folder / "house.f32").stat().st_size == 2 * 32_000 * 2 * 4
    [cancelled], [retried] = responses["CancelGeneration"], responses["RetryGeneration"]
    assert isinstance(cancelled, storage.CancelGenerationResponse)
    assert cancelled.generation.state == storage.GENERATION_STATE_CANCELLED
    assert isinstance(retried, storage.RetryGenerationResponse)
    assert retried.generation.state == storage.GENERATION_STATE_PENDING
    [clip] = responses["ImportClip"]
    assert isinstance(clip, export.ImportClipResponse)
    assert clip.frames == 2 * 32_000
    says_nothing = {name for name, messages in responses.items() if not any(one.ByteSize() for one in messages)}
    assert says_nothing == {*EMPTY, "StreamAudio", "Download", "GetMidi", "StreamStems"}  # Saved to files, but for two.


async def test_command_with_tls_and_token_works_with_the_token_only(tmp_path: Path) -> None:
    [command] = [command for command in page_commands(PAGE) if command.uses_tls]
    tls = make_tls_files(tmp_path / "tls")
    (tls.folder / "protos").symlink_to(ROOT / "protos")
    settings = {**tls.server_settings(), "require_tokens": True, "service_token": SERVICE_TOKEN}
    names: ServiceSet = ("storage", "generation", "gateway")
    async with embedded_services(tmp_path / "data", names, "127.0.0.1:0", **settings) as services:
        reader = Reader(services, tls.folder)
        with pytest.raises(AssertionError, match=r'"code": "unauthenticated"'):
            await reader.run(command)
        created = await services.music.CreateToken(
            access.CreateTokenRequest(name="studio", scope=access.SCOPE_READ),
            metadata=[("authorization", f"Bearer {SERVICE_TOKEN}")],
            timeout=TIMEOUT_SECONDS,
        )
        reader.environment["DGX_MUSIC_TOKEN"] = created.secret
        [models] = await reader.run(command)
        assert isinstance(models, generation.ListModelsResponse)
        assert [model.name for model in models.models] == ["sketch"]
