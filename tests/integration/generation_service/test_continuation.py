"""Continuations of generations and clips, through the real services and a model that records its parameters."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import numpy as np
import pytest
import soundfile

from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.export.v1 import export_pb2
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2 import Continuation
from gateway.config import GatewaySettings
from gateway.rpc.server import build as build_gateway
from service_runtime.rpc.server import serve_services
from tests.support.service_stack import ServiceStack
from tests.support.tone_model import Gate

UNKNOWN = "11111111-2222-4333-8444-555555555555"
TONE_RATE = 8000


@pytest.fixture
async def generation(services) -> AsyncIterator[generation_pb2_grpc.GenerationServiceAsyncStub]:
    async with connect(services.addresses["generation"]) as channel:
        yield generation_pb2_grpc.GenerationServiceStub(channel)


@pytest.fixture
async def music(services) -> AsyncIterator[gateway_pb2_grpc.MusicServiceAsyncStub]:
    settings = GatewaySettings(**services.common_settings())
    address = f"unix:{services.folder}/gateway.sock"
    async with serve_services([build_gateway(settings)], [address], settings), connect(address) as channel:
        yield gateway_pb2_grpc.MusicServiceStub(channel)


async def import_clip(services: ServiceStack, seconds: float, rate: int, hertz: float) -> str:
    """Imports a mono FLAC file of a sine and returns the clip's id."""
    file = io.BytesIO()
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    soundfile.write(file, wave, rate, format="FLAC", subtype="PCM_24")
    data = file.getvalue()
    pieces = [export_pb2.ImportClipRequest(data=data[at : at + 65536]) for at in range(0, len(data), 65536)]
    return (await services.export.ImportClip(iter(pieces), timeout=60)).clip_id


async def test_job_continues_the_end_of_a_generation(services):
    source = await services.wait_until_ended(await services.create(seconds=2.0))
    done = await services.wait_until_ended(
        await services.create("b", continuation=Continuation(source_id=source.id, seconds=0.75))
    )
    assert done.state == pb.GENERATION_STATE_COMPLETED, done.error_message
    samples, rate = soundfile.read(services.folder / source.file_path, dtype="float32")
    assert rate == TONE_RATE
    prompt_audio = services.model.received[-1].prompt_audio
    assert prompt_audio.dtype == np.float32
    assert np.array_equal(prompt_audio, samples[-6000:])
    assert dict(done.metadata)["continued_from"] == source.id
    assert dict(done.metadata)["continued_seconds"] == 0.75
    assert "continued_from" not in dict(source.metadata)
    assert services.model.received[0].prompt_audio is None


async def test_job_continues_a_clip_converted_to_the_models_format(services):
    clip_id = await import_clip(services, seconds=3.0, rate=44_100, hertz=250)
    done = await services.wait_until_ended(
        await services.create(continuation=Continuation(source_id=clip_id, seconds=1.0))
    )
    assert done.state == pb.GENERATION_STATE_COMPLETED, done.error_message
    prompt_audio = services.model.received[-1].prompt_audio
    assert prompt_audio.shape == (TONE_RATE, 2)
    sine = 0.5 * np.sin(2 * np.pi * 250 * np.arange(2 * TONE_RATE, 3 * TONE_RATE) / TONE_RATE)
    middle = slice(500, -500)  # A resampler rings at the edges of a file.
    assert np.abs(prompt_audio[middle] - sine[middle, np.newaxis]).max() < 1e-3


async def test_continuation_uses_the_last_ten_seconds_by_default(services):
    ids = {seconds: await import_clip(services, seconds=seconds, rate=TONE_RATE, hertz=440) for seconds in (12.0, 3.0)}
    for seconds, used in ((12.0, 10.0), (3.0, 3.0)):
        done = await services.wait_until_ended(await services.create(continuation=Continuation(source_id=ids[seconds])))
        assert len(services.model.received[-1].prompt_audio) == used * TONE_RATE
        assert dict(done.metadata)["continued_seconds"] == used


async def test_unknown_source_fails_the_job_without_retry(services):
    failed = await services.wait_until_ended(await services.create(continuation=Continuation(source_id=UNKNOWN)))
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == f"continuation.source_id: there is no finished generation or clip with id {UNKNOWN}"
    assert services.model.received == []


async def test_model_without_continuation_fails_the_job_and_lists_capable_models(services):
    source = Continuation(source_id=await import_clip(services, 1.0, TONE_RATE, 440))
    failed = await services.wait_until_ended(
        await services.create("house", model_name="sketch", sample_rate_hz=32000, continuation=source)
    )
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == "continuation: model 'sketch' can't continue audio; models that can: tone"


@pytest.mark.slow
async def test_export_outage_costs_one_attempt(services):
    source = Continuation(source_id=await import_clip(services, 1.0, TONE_RATE, 440))
    await services.stop("export")
    generation_id = await services.create(continuation=source)
    waiting = await services.wait_until(
        generation_id, lambda generation: generation.attempt == 1 and bool(generation.error_message)
    )
    assert waiting.state == pb.GENERATION_STATE_PENDING
    await services.start("export")
    assert (await services.wait_until_ended(generation_id)).state == pb.GENERATION_STATE_COMPLETED


async def test_generate_continues_a_clip(services, generation):
    clip_id = await import_clip(services, 2.0, TONE_RATE, 440)
    request = generation_pb2.GenerateRequest(
        prompt="a", duration_seconds=0.5, continuation=Continuation(source_id=clip_id.upper(), seconds=0.5)
    )
    parts = [part async for part in generation.Generate(request, timeout=60)]
    assert parts[-1].end.total_frames == TONE_RATE // 2
    assert services.model.received[-1].prompt_audio.shape == (TONE_RATE // 2, 2)


@pytest.mark.parametrize(
    ("model", "field", "hint"),
    [("tone", "continuation.source_id", UNKNOWN), ("sketch", "continuation", "models that can: tone")],
)
async def test_generate_rejects_an_invalid_continuation(services, generation, model, field, hint):
    request = generation_pb2.GenerateRequest(
        prompt="a", model_name=model, duration_seconds=0.5, continuation=Continuation(source_id=UNKNOWN)
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generation.Generate(request, timeout=60).read()
    failure = read_error_details(caught.value)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert hint in failure.violations[field]


async def test_list_models_reports_continuation_support(services, generation):
    models = (await generation.ListModels(generation_pb2.ListModelsRequest(), timeout=60)).models
    assert {model.name: list(model.capabilities) for model in models} == {
        "tone": [generation_pb2.CAPABILITY_CONTINUATION],
        "sketch": [],
    }


def continuation_request(source_id: str, **fields: object) -> pb.CreateGenerationRequest:
    """Returns a request to the gateway for half a second that continues the source."""
    options = {"prompt": "b", "model_name": "tone", "duration_seconds": 0.5, **fields}
    return pb.CreateGenerationRequest(continuation=Continuation(source_id=source_id), **options)


async def test_gateway_continues_generations_and_clips(services, music):
    source = await services.wait_until_ended(await services.create())
    for source_id in (source.id, await import_clip(services, 1.0, 22_050, 440)):
        created = (await music.CreateGeneration(continuation_request(source_id), timeout=60)).generation
        assert created.continuation == Continuation(source_id=source_id, seconds=10.0)
        done = await services.wait_until_ended(created.id)
        assert done.state == pb.GENERATION_STATE_COMPLETED, done.error_message
        assert dict(done.metadata)["continued_from"] == source_id


async def test_gateway_rejects_a_source_that_is_not_completed(services, music):
    gate = services.model.at["a", 3] = Gate()
    source_id = await services.create()
    await gate.reached()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await music.CreateGeneration(continuation_request(source_id), timeout=60)
    gate.open()
    failure = read_error_details(caught.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SOURCE_NOT_COMPLETED")
    assert f"{source_id} is PROCESSING" in failure.message


@pytest.mark.parametrize(
    ("source_id", "fields", "field", "hint"),
    [
        ("x.wav", {}, "continuation.source_id", "must be a UUID"),
        (UNKNOWN, {"model_name": "sketch"}, "continuation", "models that can: tone"),
    ],
)
async def test_gateway_rejects_an_invalid_continuation(music, source_id, fields, field, hint):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await music.CreateGeneration(continuation_request(source_id, **fields), timeout=60)
    failure = read_error_details(caught.value)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert hint in failure.violations[field]
