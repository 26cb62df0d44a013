"""Fault 55: the object storage is killed, cut off in the middle of an upload, silent, full, or denies access. An export
then fails with the reason and nothing under the final key, its samples are kept, the health says so, and the next
attempt completes once the storage is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dgx_music.channel import connect
from export_service.config import ExportSettings
from export_service.objects import bucket as bucket_module
from export_service.objects import write_check
from export_service.rpc.server import build
from service_runtime.rpc.health import health_monitor
from service_runtime.rpc.server import serve_services
from tests.support.cut_connection import Forwarder, forwarding_to
from tests.support.export_client import ExportClient, kept_spool, music, new_id, raises_rpc_error
from tests.support.health import NOT_SERVING, SERVING, wait_for_health
from tests.support.log_capture import captured_logs
from tests.support.object_storage import library_keys, read_hash
from tests.support.s3_server import OWNER, READER, S3Server, s3_server

pytestmark = pytest.mark.slow

SAMPLES = music(2)


@pytest.fixture(scope="module")
def storage() -> Iterator[S3Server]:
    """A server of this module's own, which it kills."""
    with s3_server() as server:
        yield server


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEALTH_PERIOD_SECONDS", "RECOVERY_PERIOD_SECONDS"):
        monkeypatch.setattr(health_monitor, name, 0.2)
    monkeypatch.setattr(write_check, "CHECK_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(bucket_module, "RETRY_SECONDS", 0.5)


@asynccontextmanager
async def serving(folder: Path, environment: dict[str, str]) -> AsyncIterator[tuple[ExportClient, Any]]:
    """Runs an export service in this process, and yields a client and its channel once it is SERVING."""
    from dgx_music.export.v1 import export_pb2_grpc

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        settings = ExportSettings(data_dir=folder, grace_seconds=0.2)
        service = build(settings)
    address = f"unix:{folder}/s"
    async with serve_services([service], [address], settings), connect(address) as channel:
        yield ExportClient(folder, export_pb2_grpc.ExportServiceStub(channel)), channel


@asynccontextmanager
async def serving_through(
    storage: S3Server, bucket: str, folder: Path
) -> AsyncIterator[tuple[Forwarder, ExportClient, Any]]:
    """Does the same with a way to the storage that can be cut."""
    async with AsyncExitStack() as stack:
        forwarder = await stack.enter_async_context(forwarding_to(storage.address))
        environment = storage.settings(bucket, address=forwarder.address)
        client, channel = await stack.enter_async_context(serving(folder, environment))
        yield forwarder, client, channel


def assert_clean(client: ExportClient, generation_id: str, attempt: int = 1) -> None:
    assert client.spools() == kept_spool(generation_id, attempt)
    assert not {path for path in client.library_files() if path.startswith("objects/")}


async def test_killed_and_started_again(storage: S3Server, tmp_path: Path) -> None:
    with storage.bucket() as bucket:
        store, generation_id = storage.store(bucket), new_id()
        async with serving(tmp_path, storage.settings(bucket)) as (client, channel):
            await wait_for_health(channel, SERVING)
            storage.kill()
            async with raises_rpc_error("UNAVAILABLE", "OBJECT_STORAGE_UNAVAILABLE", match="refused"):
                await client.export(generation_id, SAMPLES)
            assert_clean(client, generation_id)
            await wait_for_health(channel, NOT_SERVING)
            await asyncio.to_thread(storage.start)
            await wait_for_health(channel, SERVING)
            resumed = (await client.resume(generation_id, 2)).file
            assert library_keys(store) == {resumed.file_path}
            assert read_hash(store, resumed.file_path) == resumed.file_sha256


async def test_cut_in_the_middle_of_an_upload(storage: S3Server, tmp_path: Path) -> None:
    with storage.bucket() as bucket:
        store, generation_id = storage.store(bucket), new_id()
        async with serving_through(storage, bucket, tmp_path) as (forwarder, client, channel):
            await wait_for_health(channel, SERVING)
            forwarder.bytes_per_second = 200_000  # The file takes 2 s.
            export = asyncio.ensure_future(client.export(generation_id, SAMPLES))
            while not export.done():  # Each time when some of the request has passed.
                forwarder.cut()
                await asyncio.wait({export}, timeout=0.5)
            async with raises_rpc_error("UNAVAILABLE", "OBJECT_STORAGE_UNAVAILABLE"):
                await export
            assert_clean(client, generation_id)
            assert library_keys(store) == set()
            forwarder.restore()
            resumed = (await client.resume(generation_id, 2)).file
            assert library_keys(store) == {resumed.file_path}
            assert read_hash(store, resumed.file_path) == resumed.file_sha256


async def test_silent(storage: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(bucket_module, "CHECK_SECONDS", 1.5)
    with storage.bucket() as bucket:
        generation_id = new_id()
        async with serving_through(storage, bucket, tmp_path) as (forwarder, client, channel):
            await wait_for_health(channel, SERVING)
            forwarder.hold()
            async with raises_rpc_error("UNAVAILABLE", "OBJECT_STORAGE_UNAVAILABLE", match="did not answer in time"):
                await client.export(generation_id, SAMPLES)
            assert_clean(client, generation_id)
            await wait_for_health(channel, NOT_SERVING)
            forwarder.restore()
            await wait_for_health(channel, SERVING)
            await client.resume(generation_id, 2)


async def test_full(storage: S3Server, tmp_path: Path) -> None:
    with storage.bucket() as bucket:
        store, generation_id = storage.store(bucket), new_id()
        async with serving(tmp_path, storage.settings(bucket)) as (client, channel):
            kept = await client.export(new_id(), SAMPLES)
            storage.kill()
            await asyncio.to_thread(storage.start, is_full=True)
            async with raises_rpc_error("UNAVAILABLE", "OBJECT_STORAGE_UNAVAILABLE", match="500 InternalError"):
                await client.export(generation_id, SAMPLES)
            await wait_for_health(channel, NOT_SERVING)
            assert client.spools() >= kept_spool(generation_id)
            assert await client.download(kept.file_path.split("/")[1])
            storage.kill()
            await asyncio.to_thread(storage.start)
            await wait_for_health(channel, SERVING)
            resumed = (await client.resume(generation_id, 2)).file
            assert library_keys(store) == {kept.file_path, resumed.file_path}


async def test_access_denied_and_no_bucket(storage: S3Server, tmp_path: Path) -> None:
    with storage.bucket() as bucket, captured_logs("json") as log:
        for name, environment, reason in (
            ("denied", storage.settings(bucket, READER), "BUCKET_ACCESS_DENIED"),
            ("absent", storage.settings("no-such-bucket"), "BUCKET_NOT_FOUND"),
        ):
            folder = tmp_path / name
            folder.mkdir()
            async with serving(folder, environment) as (client, channel):
                await wait_for_health(channel, NOT_SERVING)
                async with raises_rpc_error("UNAVAILABLE", reason):
                    await client.export(new_id(), SAMPLES)
    assert "the object storage denied access" in log.getvalue()
    for secret in (OWNER.secret_access_key, READER.secret_access_key, "Signature="):
        assert secret not in log.getvalue()
