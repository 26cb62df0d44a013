"""`dgx-music token`, and limits as a caller of the gateway meets them, on real services."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dgx_music.access.v1 import access_pb2 as access
from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceStub
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from gateway.embedded.ownership import Client, acquire_or_join
from service_runtime.access.token_format import hash_token
from tests.support.command_line import InProcessShell, Shell


@pytest.fixture
def shell(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    """A command line on the data directory of a server that queues 3 generations of a client."""
    shell = InProcessShell(tmp_path, capfd)
    with shell.serving_in_process(DGX_MUSIC_MAX_PENDING_PER_CLIENT="3"):
        yield shell


def address(shell: Shell) -> str:
    with acquire_or_join(shell.data_dir) as place:
        assert isinstance(place, Client)
        return place.address


async def verify(shell: Shell, secret: str) -> grpc.StatusCode:
    async with connect(address(shell)) as channel:
        request = access.VerifyTokenRequest(id=secret.split("_")[1], secret_sha256=hash_token(secret))
        try:
            await StorageServiceStub(channel).VerifyToken(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def test_token_is_created_listed_and_revoked(shell: Shell) -> None:
    assert "token create NAME" in shell.run("token").stderr
    created = shell.run("token", "create", "studio", "--expires", "30d", "--max-queued", "5")
    secret = created.stdout.strip()
    assert "shown only now" in created.stderr
    assert asyncio.run(verify(shell, secret)) is grpc.StatusCode.OK
    token_id = secret.split("_")[1]
    assert token_id in shell.error("token", "create", "studio", status=1)
    assert shell.error("token", "create", " ", status=2).startswith("error: NAME: ")
    other = json.loads(shell.run("token", "create", "ci", "--scope", "read", "--json").stdout)
    assert (other["token"]["name"], other["token"]["scope"]) == ("ci", "SCOPE_READ")

    listed = shell.run("token")
    assert secret not in listed.stdout
    rows = [line.split() for line in listed.stdout.splitlines()]
    assert [row[:4] for row in rows[1:]] == [
        [other["token"]["id"], "ci", "read", "valid"],
        [token_id, "studio", "generate", "expires"],
    ]
    assert "5 queued" in listed.stdout

    shell.run("token", "revoke", "studio")
    assert asyncio.run(verify(shell, secret)) is grpc.StatusCode.UNAUTHENTICATED
    assert "no valid token" in shell.error("token", "revoke", "studio", status=1)
    shell.run("token", "revoke", other["token"]["id"])
    states = [json.loads(line).get("revoked_at") for line in shell.run("token", "list", "--json").stdout.splitlines()]
    assert len(states) == 2
    assert all(states)


def test_full_queue_is_refused_with_a_time_to_retry(shell: Shell) -> None:
    async def fill() -> None:
        async with connect(address(shell)) as channel:
            music = MusicServiceStub(channel)
            request = storage.CreateGenerationRequest(prompt="piano", model_name="sketch", duration_seconds=600)
            batch = storage.BatchCreateGenerationsRequest(requests=[request] * 3)
            generations = (await music.BatchCreateGenerations(batch, timeout=60)).generations
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await music.CreateGeneration(request, timeout=60)
            details = read_error_details(raised.value)
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details.reason == "CLIENT_QUEUE_LIMIT_REACHED"
            assert details.retry_after_seconds is not None
            assert details.retry_after_seconds >= 1.0
            for generation in generations:
                await music.CancelGeneration(storage.CancelGenerationRequest(id=generation.id), timeout=60)
            created = await music.CreateGeneration(request, timeout=60)
            await music.CancelGeneration(storage.CancelGenerationRequest(id=created.generation.id), timeout=60)

    asyncio.run(fill())
