"""The RPCs of GenerationService over gRPC, without storage and export."""

from __future__ import annotations

import asyncio
import math
import urllib.request
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from dgx_music.audio.v1 import audio_pb2
from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.errors import Unavailable
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from dgx_music.pcm import PcmReader
from dgx_music.storage.v1.conditioning_pb2 import Conditioning, WeightedPrompt
from dgx_music.storage.v1.storage_pb2 import Continuation, SamplingParameters
from generation_service.config import GenerationSettings
from generation_service.models.base import Capability, TooLarge
from generation_service.models.catalog import ModelCatalog
from generation_service.processes.engine_pool import EnginePool
from generation_service.rpc.server import build
from service_runtime.rpc.server import serve_services
from tests.support.processes import free_ports
from tests.support.tone_model import Gate, ToneModel, fail_with, tone, tone_parameters


@dataclass
class Server:
    stub: rpc.GenerationServiceAsyncStub
    channel: grpc.aio.Channel
    engine: EnginePool
    service: object


@asynccontextmanager
async def serve(tmp_path: Path, *models: ToneModel, **overrides: object) -> AsyncIterator[Server]:
    """Runs a generation server whose storage and export are unreachable."""
    settings = GenerationSettings(
        storage_address=f"unix:{tmp_path}/none", export_address=f"unix:{tmp_path}/none", grace_seconds=0.2, **overrides
    )
    service = build(settings, catalog=ModelCatalog(lambda: [model.entry for model in models]))
    address = f"unix:{tmp_path}/generation.sock"
    async with serve_services([service], [address], settings), connect(address) as channel:
        yield Server(rpc.GenerationServiceStub(channel), channel, service.engine, service)


@pytest.fixture
async def server(tmp_path, model) -> AsyncIterator[Server]:
    async with serve(tmp_path, model, max_batch_size=1, max_waiting=1) as server:
        yield server


def request(prompt: str = "a", seconds: float = 0.4, **fields: object) -> pb.GenerateRequest:
    return pb.GenerateRequest(prompt=prompt, duration_seconds=seconds, **fields)


async def read_stream(call) -> tuple[audio_pb2.AudioHeader, np.ndarray, list[pb.GenerateProgress]]:
    """Reads a whole response stream and checks it against its end."""
    parts = [part async for part in call]
    kinds = [part.WhichOneof("part") for part in parts]
    assert kinds[:2] == ["header", "progress"]
    assert kinds[-1] == "end"
    assert kinds.count("header") == kinds.count("end") == 1
    reader = PcmReader(parts[0].header)
    pcm = b"".join(reader.accept(part.chunk) for part in parts if part.HasField("chunk"))
    reader.finish(parts[-1].end)
    samples = np.frombuffer(pcm, "<f4").reshape(-1, parts[0].header.channels)
    return parts[0].header, samples, [part.progress for part in parts if part.HasField("progress")]


async def read_failure_of(call) -> object:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return read_error_details(caught.value)


async def test_generate_streams_header_progress_chunks_and_end(server):
    header, samples, progress = await read_stream(server.stub.Generate(request(seed=440), timeout=60))
    assert uuid.UUID(header.generation_id)
    assert (header.attempt, header.level, header.expected_frames) == (1, audio_pb2.AUDIO_LEVEL_LIVE, 3200)
    assert (header.sample_rate_hz, header.channels) == (8000, 2)
    assert np.array_equal(samples, tone(tone_parameters("a", 4)))
    assert (progress[0].frames, progress[0].seed, progress[0].model_name) == (0, 440, "tone")
    assert [step.frames for step in progress] == [0, 800, 1600, 2400, 3200]
    assert progress[-1].expected_frames == 3200


async def test_drawn_seed_is_reported_and_reproduces_the_samples(server):
    header, samples, progress = await read_stream(server.stub.Generate(request(), timeout=60))
    again = await read_stream(server.stub.Generate(request(seed=progress[0].seed, model_name="tone"), timeout=60))
    assert np.array_equal(again[1], samples)
    assert again[0].generation_id != header.generation_id


async def test_long_block_is_split_into_chunks(tmp_path, model):
    model.shapes["long"] = lambda block: np.resize(block, (20_000, 2))
    async with serve(tmp_path, model) as server:
        _, samples, _ = await read_stream(server.stub.Generate(request("long", 2.5), timeout=60))
    assert len(samples) == 20_000


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "\0"}, "prompt"),
        ({"prompt": "x" * 100_000}, "prompt"),
        ({"seconds": float("nan")}, "duration_seconds"),
        ({"seconds": 0}, "duration_seconds"),
        ({"seconds": -1}, "duration_seconds"),
        ({"seconds": 1e9}, "duration_seconds"),
        ({"seed": -1}, "seed"),
        ({"model_name": "musicgen"}, "model_name"),
        ({"sampling": SamplingParameters(temperature=0)}, "sampling.temperature"),
        ({"sampling": SamplingParameters(top_k=-1)}, "sampling.top_k"),
        ({"continuation": Continuation()}, "continuation.source_id"),
        ({"continuation": Continuation(source_id=str(uuid.UUID(int=1)), seconds=0.4)}, "continuation.seconds"),
        ({"continuation": Continuation(source_id=str(uuid.UUID(int=1)), seconds=25.1)}, "continuation.seconds"),
    ],
)
async def test_invalid_request_is_invalid_argument_for_its_field(server, fields, field):
    failure = await read_failure_of(server.stub.Generate(request(**fields), timeout=60))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(failure.violations) == [field]
    if field == "model_name":
        assert "available models: tone" in failure.message


async def test_condition_that_is_not_a_number_is_invalid_argument_for_its_field(tmp_path, model):
    model.info = replace(model.info, capabilities=frozenset(Capability))
    conditioning = Conditioning(further_prompts=[WeightedPrompt(prompt="strings", weight=math.nan)])
    async with serve(tmp_path, model) as server:
        failure = await read_failure_of(server.stub.Generate(request(conditioning=conditioning), timeout=60))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(failure.violations) == ["conditioning.further_prompts[0].weight"]


async def test_cancelled_call_frees_its_place(server, model):
    gate = model.at["a", 2] = Gate()
    call = server.stub.Generate(request(seconds=100), timeout=60)
    await call.read()
    await gate.reached()
    call.cancel()
    gate.open()
    await model.release_of("a")
    assert len(model.batches) < 1000
    await read_stream(server.stub.Generate(request("next"), timeout=60))


async def test_deadline_applies_while_queued_and_while_running(server, model):
    gate = model.at["a", 1] = Gate()
    runs = server.stub.Generate(request(), timeout=2)  # Long enough to reach the batch, even on a busy machine.
    await gate.reached()
    waits = server.stub.Generate(request("b"), timeout=0.3)
    codes = [failure.code for failure in await asyncio.gather(read_failure_of(runs), read_failure_of(waits))]
    assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2
    gate.open()
    await model.release_of("a")
    await read_stream(server.stub.Generate(request("next"), timeout=60))
    assert model.prefilled == ["a", "next"]


async def test_full_queue_is_resource_exhausted_with_a_retry_time(server, model):
    gate = model.at["a", 1] = Gate()
    runs = server.stub.Generate(request("a"), timeout=60)
    await gate.reached()
    waits = aiter(server.stub.Generate(request("b"), timeout=60))
    await anext(waits)
    failure = await read_failure_of(server.stub.Generate(request("c"), timeout=60))
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert failure.retry_after_seconds == 1.0
    status = await server.stub.GetEngineStatus(pb.GetEngineStatusRequest(), timeout=60)
    assert (status.running, status.waiting, status.max_batch_size, status.max_waiting) == (1, 1, 1, 1)
    assert status.device == "cpu"
    gate.open()
    _, samples, _ = await read_stream(runs)
    assert len(samples) == 3200
    assert [part.WhichOneof("part") async for part in waits][-1] == "end"


async def test_request_larger_than_the_memory_is_resource_exhausted(server, model):
    model.at["a", 0] = fail_with(TooLarge("duration_seconds", "ask for at most 12 s"))
    failure = await read_failure_of(server.stub.Generate(request(), timeout=60))
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "KV_MEMORY")
    assert failure.violations == {"duration_seconds": "ask for at most 12 s"}
    assert failure.retry_after_seconds == 60
    assert model.batches == []


async def test_model_failure_ends_the_stream_with_internal(server, model):
    model.at["a", 3] = fail_with(ValueError("a string broke"))
    failure = await read_failure_of(server.stub.Generate(request(), timeout=60))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "MODEL_FAILED")
    assert failure.message == "model 'tone' failed at step 3: ValueError: a string broke"


async def test_list_models_starts_with_the_default(tmp_path):
    async with serve(tmp_path, ToneModel("lute"), ToneModel("harp")) as server:
        await read_stream(server.stub.Generate(request(model_name="harp"), timeout=60))
        models = (await server.stub.ListModels(pb.ListModelsRequest(), timeout=60)).models
        default = (await server.stub.GetModel(pb.GetModelRequest(), timeout=60)).model
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.stub.GetModel(pb.GetModelRequest(name="oud"), timeout=60)
    assert [(model.name, model.is_default, model.is_loaded) for model in models] == [
        ("lute", True, False),
        ("harp", False, True),
    ]
    assert default == models[0]
    assert (default.version, default.license, default.description) == ("7", "CC0-1.0", "A sine.")
    assert (default.sample_rate_hz, default.channels, default.max_duration_seconds) == (8000, 2, 3600.0)
    failure = read_error_details(caught.value)
    assert failure.code is grpc.StatusCode.NOT_FOUND
    assert "available models: harp, lute" in failure.message


async def test_sampling_parameters_reach_the_model(server, model):
    sampling = SamplingParameters(temperature=0.5, top_k=0, guidance_scale=0.0)
    await read_stream(server.stub.Generate(request(sampling=sampling), timeout=60))
    await read_stream(server.stub.Generate(request("b"), timeout=60))
    drawn = [(each.temperature, each.top_k, each.top_p, each.guidance_scale) for each in model.received]
    assert drawn == [(0.5, 0, 0.0, 0.0), (1.0, 250, 0.0, 3.0)]


async def test_load_and_unload_model(server, model):
    stub = server.stub
    assert (await stub.LoadModel(pb.LoadModelRequest(), timeout=60)).model.is_loaded
    call = stub.Generate(request(seconds=3600), timeout=60)
    while (await call.read()).WhichOneof("part") != "chunk":
        pass
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.UnloadModel(pb.UnloadModelRequest(name="tone"), timeout=60)
    failure = read_error_details(caught.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_IN_USE")
    call.cancel()
    await model.release_of("a")
    assert not (await stub.UnloadModel(pb.UnloadModelRequest(name="tone"), timeout=60)).model.is_loaded
    for method, request_type in ((stub.LoadModel, pb.LoadModelRequest), (stub.UnloadModel, pb.UnloadModelRequest)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request_type(name="oud"), timeout=60)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_unusable_model_is_listed_with_its_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))  # Ignore the models in the user's own cache.
    folder = tmp_path / "data" / "models" / "own"
    folder.mkdir(parents=True)
    (folder / "state_dict.bin").write_bytes(b"no weights")
    settings = GenerationSettings(
        data_dir=tmp_path / "data", storage_address=f"unix:{tmp_path}/none", export_address=f"unix:{tmp_path}/none"
    )
    address = f"unix:{tmp_path}/generation.sock"
    async with serve_services([build(settings)], [address], settings), connect(address) as channel:
        stub = rpc.GenerationServiceStub(channel)
        own, sketch = (await stub.ListModels(pb.ListModelsRequest(), timeout=60)).models
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetModel(pb.GetModelRequest(name="own"), timeout=60)
        unloaded = (await stub.UnloadModel(pb.UnloadModelRequest(name="own"), timeout=60)).model
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await stub.GetModel(pb.GetModelRequest(name="musicgen-small"), timeout=60)
    assert (own.name, own.is_default, own.is_loaded, own.sample_rate_hz) == ("own", True, False, 0)
    failure = read_error_details(caught.value)
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert own.problem == failure.message
    assert unloaded == own
    assert (sketch.name, sketch.problem) == ("sketch", "")
    failure = read_error_details(missing.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_NOT_INSTALLED")


async def test_metrics_contain_those_of_the_engine(tmp_path, model):
    (port,) = free_ports(1)
    async with serve(tmp_path, model, metrics_port=port) as server:
        gate = model.at["a", 1] = Gate()
        call = server.stub.Generate(request(), timeout=60)
        await gate.reached()
        url = f"http://127.0.0.1:{port}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=60).read().decode())
        gate.open()
        await read_stream(call)
    names = ("engine_", "device_")
    shown = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("dgx_music_"))
    shown = {name: value for name, value in shown.items() if name.removeprefix("dgx_music_").startswith(names)}
    shown = {name: value for name, value in shown.items() if "_bucket{" not in name}
    assert shown['dgx_music_engine_running{device="cpu"}'] == "1.0"
    assert {name.removeprefix("dgx_music_").removesuffix('{device="cpu"}') for name in shown} == {
        *("engine_running", "engine_waiting", "engine_batch_limit", "engine_audio_seconds_total"),
        *("engine_step_seconds_count", "engine_step_seconds_sum", "engine_batch_size_count", "engine_batch_size_sum"),
        *("engine_kv_reserved_bytes", "engine_kv_limit_bytes", "engine_serving", "engine_restarts_total"),
        *("device_memory_used_bytes", "device_memory_total_bytes"),
    }


async def test_health_is_not_serving_without_storage_and_export(server):
    stub = health_pb2_grpc.HealthStub(server.channel)
    name = "dgx_music.generation.v1.GenerationService"
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(Unavailable, match=r"dgx_music\.\w+\.v1\.\w+ does not answer"):
        await server.service.check()


async def test_check_fails_if_storage_is_not_serving(tmp_path):
    settings = GenerationSettings(storage_address=f"unix:{tmp_path}/sick", export_address=f"unix:{tmp_path}/sick")
    sick = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    for name in ("storage", "export"):
        full_name = f"dgx_music.{name}.v1.{name.capitalize()}Service"
        await servicer.set(full_name, health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, sick)
    sick.add_insecure_port(settings.storage_address)
    async with AsyncExitStack() as stack:
        await sick.start()
        stack.push_async_callback(sick.stop, 0)
        service = build(settings)
        stack.push_async_callback(service.stop)
        await service.start()
        with pytest.raises(Unavailable, match="is NOT_SERVING"):
            await service.check()
        await service.drain()
        with pytest.raises(Unavailable, match="stopped claiming jobs"):
            await service.check()
