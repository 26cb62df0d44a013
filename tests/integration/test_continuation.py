"""Going on from what export holds: real storage, export and generation, and a model that tells what it was given."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import numpy as np
import pytest
import soundfile

from dgx_music.channel import connect
from dgx_music.export.v1 import export_pb2
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from dgx_music.status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2 import Continuation
from gateway.config import GatewaySettings
from gateway.rpc.server import build as build_gateway
from service_runtime.rpc.server import serve_services
from tests.integration.test_generation_worker import House
from tests.unit.generation.tone_model import Gate

UNKNOWN = "11111111-2222-4333-8444-555555555555"
TONE_RATE = 8000


@pytest.fixture
async def house(tmp_path) -> AsyncIterator[House]:
    house = House(tmp_path)
    try:
        await house.open("storage", "export", "generation")
        yield house
    finally:
        await house.close_all()


@pytest.fixture
async def generation(house) -> AsyncIterator[generation_pb2_grpc.GenerationServiceAsyncStub]:
    async with connect(house.addresses["generation"]) as channel:
        yield generation_pb2_grpc.GenerationServiceStub(channel)


@pytest.fixture
async def music(house) -> AsyncIterator[gateway_pb2_grpc.MusicServiceAsyncStub]:
    settings = GatewaySettings(**house.common())
    address = f"unix:{house.folder}/gateway.sock"
    async with serve_services([build_gateway(settings)], [address], settings), connect(address) as channel:
        yield gateway_pb2_grpc.MusicServiceStub(channel)


async def clip(house: House, seconds: float, rate: int, hertz: float) -> str:
    """The id of a mono FLAC file of a sine that was imported."""
    file = io.BytesIO()
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    soundfile.write(file, wave, rate, format="FLAC", subtype="PCM_24")
    data = file.getvalue()
    pieces = [export_pb2.ImportClipRequest(data=data[at : at + 65536]) for at in range(0, len(data), 65536)]
    return (await house.export.ImportClip(iter(pieces), timeout=60)).clip_id


async def test_a_job_goes_on_from_the_end_of_an_earlier_one(house):
    source = await house.end(await house.create(seconds=2.0))
    done = await house.end(await house.create("b", continuation=Continuation(source_id=source.id, seconds=0.75)))
    assert done.state == pb.GENERATION_STATE_COMPLETED, done.error_message
    samples, rate = soundfile.read(house.folder / source.file_path, dtype="float32")
    assert rate == TONE_RATE
    given = house.model.asked[-1].prompt_audio
    assert given.dtype == np.float32
    assert np.array_equal(given, samples[-6000:])
    assert dict(done.metadata)["continued_from"] == source.id
    assert dict(done.metadata)["continued_seconds"] == 0.75
    assert "continued_from" not in dict(source.metadata)
    assert house.model.asked[0].prompt_audio is None


async def test_a_job_goes_on_from_a_clip_at_the_models_rate_and_channels(house):
    clip_id = await clip(house, seconds=3.0, rate=44_100, hertz=250)
    done = await house.end(await house.create(continuation=Continuation(source_id=clip_id, seconds=1.0)))
    assert done.state == pb.GENERATION_STATE_COMPLETED, done.error_message
    given = house.model.asked[-1].prompt_audio
    assert given.shape == (TONE_RATE, 2)
    sine = 0.5 * np.sin(2 * np.pi * 250 * np.arange(2 * TONE_RATE, 3 * TONE_RATE) / TONE_RATE)
    middle = slice(500, -500)  # A resampler rings where a file breaks off.
    assert np.abs(given[middle] - sine[middle, np.newaxis]).max() < 1e-3


async def test_ten_seconds_are_taken_unless_said_otherwise_and_all_of_what_is_shorter(house):
    ids = {seconds: await clip(house, seconds=seconds, rate=TONE_RATE, hertz=440) for seconds in (12.0, 3.0)}
    for seconds, taken in ((12.0, 10.0), (3.0, 3.0)):
        done = await house.end(await house.create(continuation=Continuation(source_id=ids[seconds])))
        assert len(house.model.asked[-1].prompt_audio) == taken * TONE_RATE
        assert dict(done.metadata)["continued_seconds"] == taken


async def test_a_source_that_is_not_there_fails_the_job_for_good_and_is_named(house):
    failed = await house.end(await house.create(continuation=Continuation(source_id=UNKNOWN)))
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == (f"continuation.source_id: there is no finished generation and no clip {UNKNOWN}")
    assert house.model.asked == []


async def test_a_model_that_cannot_continue_fails_the_job_and_those_that_can_are_named(house):
    source = Continuation(source_id=await clip(house, 1.0, TONE_RATE, 440))
    failed = await house.end(
        await house.create("house", model_name="sketch", sample_rate_hz=32000, continuation=source)
    )
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == "continuation: model 'sketch' can't continue audio; models that can: tone"


async def test_export_that_is_away_costs_an_attempt_and_no_more(house):
    source = Continuation(source_id=await clip(house, 1.0, TONE_RATE, 440))
    await house.close("export")
    generation_id = await house.create(continuation=source)
    waiting = await house.until(
        generation_id, lambda generation: generation.attempt == 1 and bool(generation.error_message)
    )
    assert waiting.state == pb.GENERATION_STATE_PENDING
    await house.open("export")
    assert (await house.end(generation_id)).state == pb.GENERATION_STATE_COMPLETED


async def test_a_direct_call_goes_on_too(house, generation):
    clip_id = await clip(house, 2.0, TONE_RATE, 440)
    request = generation_pb2.GenerateRequest(
        prompt="a", duration_seconds=0.5, continuation=Continuation(source_id=clip_id.upper(), seconds=0.5)
    )
    parts = [part async for part in generation.Generate(request, timeout=60)]
    assert parts[-1].end.total_frames == TONE_RATE // 2
    assert house.model.asked[-1].prompt_audio.shape == (TONE_RATE // 2, 2)


@pytest.mark.parametrize(
    ("model", "field", "says"),
    [("tone", "continuation.source_id", UNKNOWN), ("sketch", "continuation", "models that can: tone")],
)
async def test_a_direct_call_that_cannot_go_on_is_refused(house, generation, model, field, says):
    request = generation_pb2.GenerateRequest(
        prompt="a", model_name=model, duration_seconds=0.5, continuation=Continuation(source_id=UNKNOWN)
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await generation.Generate(request, timeout=60).read()
    failure = read_error_details(refused.value)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert says in failure.violations[field]


async def test_models_say_whether_they_can_continue(house, generation):
    models = (await generation.ListModels(generation_pb2.ListModelsRequest(), timeout=60)).models
    assert {model.name: model.can_continue for model in models} == {"tone": True, "sketch": False}


def continued(source_id: str, **fields: object) -> pb.CreateGenerationRequest:
    """Asks the gateway for half a second after that source."""
    asked = {"prompt": "b", "model_name": "tone", "duration_seconds": 0.5, **fields}
    return pb.CreateGenerationRequest(continuation=Continuation(source_id=source_id), **asked)


async def test_the_gateway_takes_generations_and_clips(house, music):
    source = await house.end(await house.create())
    for source_id in (source.id, await clip(house, 1.0, 22_050, 440)):
        created = (await music.CreateGeneration(continued(source_id), timeout=60)).generation
        assert created.continuation == Continuation(source_id=source_id, seconds=10.0)
        done = await house.end(created.id)
        assert done.state == pb.GENERATION_STATE_COMPLETED, done.error_message
        assert dict(done.metadata)["continued_from"] == source_id


async def test_the_gateway_refuses_a_source_that_is_not_completed(house, music):
    gate = house.model.at["a", 3] = Gate()
    source_id = await house.create()
    await gate.reached()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await music.CreateGeneration(continued(source_id), timeout=60)
    gate.open()
    failure = read_error_details(refused.value)
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SOURCE_NOT_COMPLETED")
    assert f"{source_id} is PROCESSING" in failure.message


@pytest.mark.parametrize(
    ("source_id", "fields", "field", "says"),
    [
        ("x.wav", {}, "continuation.source_id", "must be a UUID"),
        (UNKNOWN, {"model_name": "sketch"}, "continuation", "models that can: tone"),
    ],
)
async def test_the_gateway_refuses_what_can_not_be_continued(music, source_id, fields, field, says):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await music.CreateGeneration(continued(source_id, **fields), timeout=60)
    failure = read_error_details(refused.value)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert says in failure.violations[field]
