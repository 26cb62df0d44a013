"""MusicGen through the services: a generation server in a process of its own runs tiny checkpoints in the real format,
with random weights; storage and export are beside it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio
import soundfile

from dgx_music.channel import connect
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc
from dgx_music.pcm import PcmReader
from dgx_music.status import Failure, read_failure
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from export_service.config import ExportSettings
from export_service.rpc.server import build as build_export
from service_runtime.rpc.server import serve_services
from storage_service.config import StorageSettings
from storage_service.rpc.server import build as build_storage

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from tests.support.checkpoints import write_checkpoint, write_t5
from tests.support.processes import process

pytestmark = pytest.mark.asyncio(loop_scope="module")

Stream = grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse]

SECONDS = 120.0
"""Longest that one call may take here, the first import of torch included."""


@dataclass(frozen=True)
class House:
    folder: Path
    generation: generation_pb2_grpc.GenerationServiceAsyncStub
    storage: storage_pb2_grpc.StorageServiceAsyncStub

    async def make(self, **fields: object) -> storage_pb2.Generation:
        """Creates a generation, and gives it as it ended."""
        asked = {"prompt": "calm piano", "model_name": "tiny", "duration_seconds": 2.0, "sample_rate_hz": 32_000}
        request = storage_pb2.CreateGenerationRequest(**{**asked, "channels": 1, "seed": 7, **fields})
        generation = (await self.storage.CreateGeneration(request, timeout=SECONDS)).generation
        watch = self.storage.WatchGeneration(
            storage_pb2.WatchGenerationRequest(id=generation.id), timeout=SECONDS, wait_for_ready=True
        )
        return [change.generation async for change in watch][-1]

    def stream(self, prompt: str = "calm piano", seconds: float = 2.0, **fields: object) -> Stream:
        request = pb.GenerateRequest(
            prompt=prompt, duration_seconds=seconds, **{"model_name": "tiny", "seed": 7, **fields}
        )
        return self.generation.Generate(request, timeout=SECONDS)

    async def sha256(self, *args: object, **fields: object) -> str:
        """What is streamed adds up; the digest of its samples."""
        parts = [part async for part in self.stream(*args, **fields)]
        reader = PcmReader(parts[0].header)
        for part in parts:
            if part.HasField("chunk"):
                reader.accept(part.chunk)
        reader.finish(parts[-1].end)
        return parts[-1].end.sha256

    async def refusal(self, **fields: object) -> Failure:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.sha256(**fields)
        return read_failure(refused.value)

    async def status(self) -> pb.GetEngineStatusResponse:
        return await self.generation.GetEngineStatus(pb.GetEngineStatusRequest(), timeout=SECONDS)

    async def model(self, name: str) -> pb.Model:
        return (await self.generation.GetModel(pb.GetModelRequest(name=name), timeout=SECONDS)).model


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    models = folder / "models"
    write_checkpoint(models / "tiny")
    write_checkpoint(models / "tiny-stereo", stereo=True)
    shutil.copytree(models / "tiny", models / "truncated")
    weights = models / "truncated" / "state_dict.bin"
    weights.write_bytes(weights.read_bytes()[:5000])
    shutil.copytree(models / "tiny", models / "without-codec")
    (models / "without-codec" / "compression_state_dict.bin").unlink()
    write_t5(folder / "hf")

    files, address = f"unix:{folder}/files.sock", f"unix:{folder}/generation.sock"
    common = {"data_dir": folder, "storage_address": files, "export_address": files, "generation_address": address}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DGX_MUSIC_", "HF_"))}
    environment |= {f"DGX_MUSIC_{name.upper()}": str(value) for name, value in common.items()}
    environment |= {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "DGX_MUSIC_DEVICE": "cpu"}
    services = [build_storage(StorageSettings(**common)), build_export(ExportSettings(**common))]
    async with serve_services(services, [files], StorageSettings(**common)), connect(files) as channel:
        command = (sys.executable, "-m", "generation_service.rpc.server")
        async with process(*command, env=environment, cwd=Path(__file__).parents[3]) as server:
            async with connect(address) as to_generation:
                await asyncio.wait_for(to_generation.channel_ready(), SECONDS)
                yield House(
                    folder,
                    generation_pb2_grpc.GenerationServiceStub(to_generation),
                    storage_pb2_grpc.StorageServiceStub(channel),
                )
            server.terminate()
            assert await asyncio.wait_for(server.wait(), SECONDS) == 0


@pytest.mark.parametrize(("model", "channels"), [("tiny", 1), ("tiny-stereo", 2)])
async def test_a_prompt_becomes_a_file(house: House, model: str, channels: int) -> None:
    done = await house.make(model_name=model, channels=channels)
    assert done.state == storage_pb2.GENERATION_STATE_COMPLETED, done.error_message
    info = soundfile.info(house.folder / done.file_path)
    assert (info.frames, info.samplerate, info.channels) == (64_000, 32_000, channels)
    known = dict(done.metadata)
    assert (known["license"], known["is_synthesiser"], known["frames"]) == ("CC-BY-NC-4.0", False, 64_000)
    assert done.model_version == (await house.model(model)).version


async def test_a_seed_makes_the_same_music_again_streamed_or_filed_alone_or_in_company(house: House) -> None:
    alone = await house.sha256()
    filed = await house.make()
    assert dict(filed.metadata)["pcm_sha256"] == alone
    company = [house.sha256("loud drums", 3.0, seed=8), house.sha256("a long, long lullaby", 1.0, seed=9)]
    together = await asyncio.gather(*company, house.sha256(), house.sha256("calm piano", 2.5), house.sha256(seed=10))
    assert together[2] == alone
    assert len(set(together)) == 5


async def test_sampling_is_stored_and_changes_the_music(house: House) -> None:
    cool = storage_pb2.SamplingParameters(temperature=0.1)
    filed = await house.make(sampling=cool)
    assert filed.sampling == cool
    assert dict(filed.metadata)["pcm_sha256"] == await house.sha256(sampling=cool) != await house.sha256()
    failure = await house.refusal(sampling=storage_pb2.SamplingParameters(top_p=1.5))
    assert list(failure.violations) == ["sampling.top_p"]


async def test_audio_comes_while_it_is_made_and_a_cancel_gives_its_memory_back(house: House) -> None:
    await house.sha256(seconds=0.1)
    assert (await house.status()).kv_reserved_bytes == 0
    call = house.stream(seconds=30.0)
    while (part := await call.read()).WhichOneof("part") != "chunk":
        pass
    assert part.chunk.start_frame == 0
    status = await house.status()
    assert (status.running, status.device) == (1, "cpu")
    assert 0 < status.kv_reserved_bytes < status.kv_limit_bytes
    call.cancel()
    await house.sha256(seconds=1.0)
    status = await house.status()
    assert (status.running, status.waiting, status.kv_reserved_bytes) == (0, 0, 0)


async def test_a_model_is_loaded_unloaded_and_loaded_again(house: House) -> None:
    before = await house.sha256()
    name = pb.UnloadModelRequest(name="tiny")
    assert not (await house.generation.UnloadModel(name, timeout=SECONDS)).model.is_loaded
    assert not (await house.model("tiny")).is_loaded
    assert (await house.generation.LoadModel(pb.LoadModelRequest(name="tiny"), timeout=SECONDS)).model.is_loaded
    assert await house.sha256() == before


async def test_models_are_listed_with_what_is_wrong_with_them(house: House) -> None:
    models = (await house.generation.ListModels(pb.ListModelsRequest(), timeout=SECONDS)).models
    listed = {model.name: model for model in models}
    assert list(listed) == ["tiny", "sketch", "tiny-stereo", "truncated", "without-codec"]
    assert [model.name for model in models if model.problem] == ["truncated", "without-codec"]
    tiny, stereo = listed["tiny"], listed["tiny-stereo"]
    assert tiny.is_default
    assert (tiny.sample_rate_hz, tiny.channels, stereo.channels) == (32_000, 1, 2)
    assert tiny.license == "CC-BY-NC-4.0"


@pytest.mark.parametrize(
    ("name", "file", "problem"),
    [
        ("truncated", "state_dict.bin", "truncated"),
        ("without-codec", "compression_state_dict.bin", "no such file"),
    ],
)
async def test_files_that_cannot_be_used_are_one_line_wherever_it_is_asked(
    house: House, name: str, file: str, problem: str
) -> None:
    failure = await house.refusal(model_name=name)
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"models/{name}/{file}: {problem}" in failure.message
    assert "\n" not in failure.message
    filed = await house.make(model_name=name)
    assert (filed.state, filed.attempt) == (storage_pb2.GENERATION_STATE_FAILED, 1)
    assert filed.error_message == failure.message


async def test_a_model_that_is_not_installed_says_how(house: House) -> None:
    failure = await house.refusal(model_name="musicgen-small")
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_NOT_INSTALLED")
    assert failure.message == "model 'musicgen-small' is not installed; dgx-music models pull musicgen-small"


async def test_a_model_that_is_installed_while_the_server_runs_can_be_used(house: House) -> None:
    write_checkpoint(house.folder / "models" / "new", seed=1)
    filed, streamed = await asyncio.gather(house.make(model_name="new"), house.sha256(model_name="new"))
    assert filed.state == storage_pb2.GENERATION_STATE_COMPLETED, filed.error_message
    assert dict(filed.metadata)["pcm_sha256"] == streamed != await house.sha256()
    shutil.rmtree(house.folder / "models" / "new")
    models = (await house.generation.ListModels(pb.ListModelsRequest(), timeout=SECONDS)).models
    assert "new" not in [model.name for model in models]
    left = (await house.generation.UnloadModel(pb.UnloadModelRequest(name="new"), timeout=SECONDS)).model
    assert (left.is_loaded, left.problem.partition(";")[0]) == (False, "there is no model 'new'")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.generation.UnloadModel(pb.UnloadModelRequest(name="new"), timeout=SECONDS)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
