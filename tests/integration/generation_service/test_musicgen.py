"""MusicGen through the services.

A generation server in its own process runs tiny checkpoints in the real format, with random weights. Storage and export
run in the test's process.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
import soundfile

from dgx_music.channel import connect
from dgx_music.error_status import ErrorDetails, read_error_details
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc
from dgx_music.pcm import PcmReader
from dgx_music.storage.v1 import conditioning_pb2, storage_pb2, storage_pb2_grpc
from export_service.config import ExportSettings
from export_service.rpc.server import build as build_export
from generation_service.config import GenerationSettings
from generation_service.models.discovery import find_installed_models
from generation_service.models.params import build_parameters
from generation_service.processes.pool_builder import build_pool
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
"""Upper limit for one call, including the first import of torch."""


@dataclass(frozen=True)
class Services:
    folder: Path
    generation: generation_pb2_grpc.GenerationServiceAsyncStub
    storage: storage_pb2_grpc.StorageServiceAsyncStub

    async def generate(self, **fields: object) -> storage_pb2.Generation:
        """Creates a generation, waits for its end, and returns it."""
        defaults = {"prompt": "calm piano", "model_name": "tiny", "duration_seconds": 2.0, "sample_rate_hz": 32_000}
        request = storage_pb2.CreateGenerationRequest(**{**defaults, "channels": 1, "seed": 7, **fields})
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
        """Checks that the streamed audio is complete, and returns the digest of its samples."""
        parts = [part async for part in self.stream(*args, **fields)]
        reader = PcmReader(parts[0].header)
        for part in parts:
            if part.HasField("chunk"):
                reader.accept(part.chunk)
        reader.finish(parts[-1].end)
        return parts[-1].end.sha256

    async def refusal(self, **fields: object) -> ErrorDetails:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.sha256(**fields)
        return read_error_details(error.value)

    async def status(self) -> pb.GetEngineStatusResponse:
        return await self.generation.GetEngineStatus(pb.GetEngineStatusRequest(), timeout=SECONDS)

    async def model(self, name: str) -> pb.Model:
        return (await self.generation.GetModel(pb.GetModelRequest(name=name), timeout=SECONDS)).model


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    folder = tmp_path_factory.mktemp("services")
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
    environment |= {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "DGX_MUSIC_DEVICES": "cpu"}
    environment["DGX_MUSIC_CONFIG"] = os.devnull
    servers = [build_storage(StorageSettings(**common)), build_export(ExportSettings(**common))]
    async with serve_services(servers, [files], StorageSettings(**common)), connect(files) as channel:
        command = (sys.executable, "-m", "generation_service.rpc.server")
        async with process(*command, env=environment, cwd=Path(__file__).parents[3]) as server:
            async with connect(address) as to_generation:
                await asyncio.wait_for(to_generation.channel_ready(), SECONDS)
                write_checkpoint(models / "tiny-later", seed=1)
                yield Services(
                    folder,
                    generation_pb2_grpc.GenerationServiceStub(to_generation),
                    storage_pb2_grpc.StorageServiceStub(channel),
                )
            server.terminate()
            assert await asyncio.wait_for(server.wait(), SECONDS) == 0


@pytest.mark.parametrize(("model", "channels"), [("tiny", 1), ("tiny-stereo", 2)])
async def test_generation_becomes_a_file(services: Services, model: str, channels: int) -> None:
    done = await services.generate(model_name=model, channels=channels)
    assert done.state == storage_pb2.GENERATION_STATE_COMPLETED, done.error_message
    info = soundfile.info(services.folder / done.file_path)
    assert (info.frames, info.samplerate, info.channels) == (64_000, 32_000, channels)
    known = dict(done.metadata)
    assert (known["license"], known["is_synthesiser"], known["frames"]) == ("NOASSERTION", False, 64_000)
    assert done.model_version == (await services.model(model)).version


async def test_same_seed_gives_the_same_audio_streamed_or_stored_in_any_batch(services: Services) -> None:
    alone = await services.sha256()
    filed = await services.generate()
    assert dict(filed.metadata)["pcm_sha256"] == alone
    others = [services.sha256("loud drums", 3.0, seed=8), services.sha256("a long, long lullaby", 1.0, seed=9)]
    together = await asyncio.gather(
        *others, services.sha256(), services.sha256("calm piano", 2.5), services.sha256(seed=10)
    )
    assert together[2] == alone
    assert len(set(together)) == 5


async def test_sampling_parameters_are_stored_and_change_the_audio(services: Services) -> None:
    sampling = storage_pb2.SamplingParameters(temperature=0.1)
    filed = await services.generate(sampling=sampling)
    assert filed.sampling == sampling
    assert dict(filed.metadata)["pcm_sha256"] == await services.sha256(sampling=sampling) != await services.sha256()
    failure = await services.refusal(sampling=storage_pb2.SamplingParameters(top_p=1.5))
    assert list(failure.violations) == ["sampling.top_p"]


async def test_further_texts_are_stored_and_change_the_audio(services: Services) -> None:
    """In one batch, streamed and stored alike."""
    conditions = [
        conditioning_pb2.Conditioning(),
        conditioning_pb2.Conditioning(negative_prompt="noise"),
        conditioning_pb2.Conditioning(
            prompt_weight=2.0, further_prompts=[conditioning_pb2.WeightedPrompt(prompt="loud drums", weight=0.5)]
        ),
        conditioning_pb2.Conditioning(
            sections=[conditioning_pb2.PromptSection(start_seconds=1, end_seconds=2, prompt="loud drums")]
        ),
    ]
    digests = await asyncio.gather(*(services.sha256(conditioning=each) for each in conditions))
    assert len(set(digests)) == len(conditions)
    assert digests[0] == await services.sha256()
    for conditioning, digest in zip(conditions[1:], digests[1:], strict=True):
        filed = await services.generate(conditioning=conditioning)
        assert filed.conditioning == conditioning
        assert dict(filed.metadata)["pcm_sha256"] == digest
    assert (await services.status()).kv_reserved_bytes == 0
    failure = await services.refusal(model_name="sketch", conditioning=conditions[1])
    assert list(failure.violations) == ["conditioning.negative_prompt"]
    assert "models that can: tiny" in failure.message


async def test_audio_is_streamed_during_generation_and_cancel_releases_memory(services: Services) -> None:
    await services.sha256(seconds=0.1)
    assert (await services.status()).kv_reserved_bytes == 0
    call = services.stream(seconds=30.0)
    while (part := await call.read()).WhichOneof("part") != "chunk":
        pass
    assert part.chunk.start_frame == 0
    status = await services.status()
    assert (status.running, status.device) == (1, "cpu")
    assert 0 < status.kv_reserved_bytes < status.kv_limit_bytes
    call.cancel()
    await services.sha256(seconds=1.0)
    status = await services.status()
    assert (status.running, status.waiting, status.kv_reserved_bytes) == (0, 0, 0)


@pytest.mark.slow
async def test_engine_process_generates_the_same_audio(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(services.folder / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = GenerationSettings(data_dir=services.folder, default_model="tiny", devices="cpu,cpu")
    pool = build_pool(settings, find_installed_models(settings))
    await pool.start()
    try:
        info = await pool.catalog.describe("tiny")
        handle = await pool.submit(info, build_parameters(info, "calm piano", 2.0, 7, {}))
        samples = np.concatenate([block async for block in handle])
        assert hashlib.sha256(samples.tobytes()).hexdigest() == await services.sha256()
        await pool.refresh()
        assert [len(report.models) for report in pool.reports()] == [1, 0]
    finally:
        await pool.stop()


async def test_reloaded_model_generates_the_same_audio(services: Services) -> None:
    before = await services.sha256()
    name = pb.UnloadModelRequest(name="tiny")
    assert not (await services.generation.UnloadModel(name, timeout=SECONDS)).model.is_loaded
    assert not (await services.model("tiny")).is_loaded
    assert (await services.generation.LoadModel(pb.LoadModelRequest(name="tiny"), timeout=SECONDS)).model.is_loaded
    assert await services.sha256() == before


async def test_model_list_reports_problems(services: Services) -> None:
    models = (await services.generation.ListModels(pb.ListModelsRequest(), timeout=SECONDS)).models
    listed = {model.name: model for model in models}
    assert list(listed) == ["tiny", "sketch", "tiny-later", "tiny-stereo", "truncated", "without-codec"]
    assert [model.name for model in models if model.problem] == ["truncated", "without-codec"]
    tiny, stereo = listed["tiny"], listed["tiny-stereo"]
    assert tiny.is_default
    assert (tiny.sample_rate_hz, tiny.channels, stereo.channels) == (32_000, 1, 2)
    assert tiny.license == "NOASSERTION"


@pytest.mark.parametrize(
    ("name", "file", "problem"),
    [
        ("truncated", "state_dict.bin", "the file is truncated"),
        ("without-codec", "compression_state_dict.bin", "no such file"),
    ],
)
async def test_invalid_model_files_are_reported_in_one_line(
    services: Services, name: str, file: str, problem: str
) -> None:
    failure = await services.refusal(model_name=name)
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"models/{name}/{file}: {problem}" in failure.message
    assert "\n" not in failure.message
    filed = await services.generate(model_name=name)
    assert (filed.state, filed.attempt) == (storage_pb2.GENERATION_STATE_FAILED, 1)
    assert filed.error_message == failure.message


async def test_missing_model_error_names_the_pull_command(services: Services) -> None:
    failure = await services.refusal(model_name="musicgen-small")
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_NOT_INSTALLED")
    assert failure.message == "model 'musicgen-small' is not installed; run `dgx-music models pull musicgen-small`"


async def test_model_installed_at_runtime_can_be_used(services: Services) -> None:
    name = "tiny-later"
    filed, streamed = await asyncio.gather(services.generate(model_name=name), services.sha256(model_name=name))
    assert filed.state == storage_pb2.GENERATION_STATE_COMPLETED, filed.error_message
    assert dict(filed.metadata)["pcm_sha256"] == streamed != await services.sha256()
    shutil.rmtree(services.folder / "models" / "tiny-later")
    models = (await services.generation.ListModels(pb.ListModelsRequest(), timeout=SECONDS)).models
    assert "tiny-later" not in [model.name for model in models]
    left = (await services.generation.UnloadModel(pb.UnloadModelRequest(name="tiny-later"), timeout=SECONDS)).model
    assert (left.is_loaded, left.problem.partition(";")[0]) == (False, "there is no model 'tiny-later'")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await services.generation.UnloadModel(pb.UnloadModelRequest(name="tiny-later"), timeout=SECONDS)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
