"""MusicService over a real connection, with the real services behind it."""

from __future__ import annotations

import asyncio
import hashlib
import math
import uuid
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.generation.v1 import generation_pb2 as generation
from dgx_music.pcm import PcmReader, PcmWriter, live_header
from dgx_music.status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as storage

if TYPE_CHECKING:
    from .conftest import House

SECONDS = 60.0
RATE, CHANNELS = 32_000, 2


async def create(house: House, **fields: object) -> storage.Generation:
    """Through the gateway where generation is up, else straight at storage."""
    request = storage.CreateGenerationRequest(prompt="techno", duration_seconds=1.0)
    request.MergeFrom(storage.CreateGenerationRequest(**fields))  # type: ignore[arg-type]
    return (await house.music.CreateGeneration(request, timeout=SECONDS)).generation


async def create_idle(house: House) -> storage.Generation:
    request = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=1.0, sample_rate_hz=RATE, channels=CHANNELS
    )
    return (await house.storage.CreateGeneration(request, timeout=SECONDS)).generation


async def claim(house: House) -> storage.ClaimGenerationResponse:
    request = storage.ClaimGenerationRequest(worker_id="test", model_names=["sketch"], lease_seconds=30, wait_seconds=5)
    return await house.storage.ClaimGeneration(request, timeout=SECONDS)


async def finished(house: House, generation_id: str) -> storage.Generation:
    last = storage.Generation()
    async for change in house.music.WatchGeneration(storage.WatchGenerationRequest(id=generation_id), timeout=SECONDS):
        last = change.generation
    return last


async def refused(call: object) -> grpc.aio.AioRpcError:
    """What the call, unary or stream, is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (drained(call) if isinstance(call, grpc.aio.UnaryStreamCall) else call)  # type: ignore[misc]
    return caught.value


async def drained(call: grpc.aio.UnaryStreamCall[object, object]) -> None:
    async for _ in call:
        pass


async def test_from_a_prompt_to_all_that_is_told_of_it(whole: House) -> None:
    made = await finished(whole, (await create(whole, seed=7)).id)
    assert made.state == storage.GENERATION_STATE_COMPLETED
    assert (made.model_name, made.sample_rate_hz, made.channels, made.seed) == ("sketch", RATE, CHANNELS, 7)

    got = await whole.music.GetGeneration(storage.GetGenerationRequest(id=made.id), timeout=SECONDS)
    assert got.generation == made
    listed = await whole.music.ListGenerations(storage.ListGenerationsRequest(), timeout=SECONDS)
    assert list(listed.generations) == [made]
    data = b""
    async for part in whole.music.Download(export.DownloadRequest(generation_id=made.id), timeout=SECONDS):
        data += part.data
    assert data[:4] == b"RIFF"
    assert len(data) == made.file_size_bytes
    outline = await whole.music.GetWaveform(
        export.GetWaveformRequest(generation_id=made.id, points=10), timeout=SECONDS
    )
    assert len(outline.data) == 20
    prompts = await whole.music.ListPrompts(storage.ListPromptsRequest(), timeout=SECONDS)
    assert [prompt.text for prompt in prompts.prompts] == ["techno"]
    figures = await whole.music.GetStatistics(storage.GetStatisticsRequest(), timeout=SECONDS)
    assert figures.completed_generations == 1
    models = await whole.music.ListModels(generation.ListModelsRequest(), timeout=SECONDS)
    assert [model.name for model in models.models] == ["sketch"]


async def test_a_repeated_create_answers_the_same_generation(whole: House) -> None:
    request_id = str(uuid.uuid4())
    first = await create(whole, request_id=request_id)
    assert (await create(whole, request_id=request_id)).id == first.id


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model_name": "musicgen-huge"}, "model_name"),
        ({"sample_rate_hz": 44_100}, "sample_rate_hz"),
        ({"channels": 1}, "channels"),
        ({"duration_seconds": 1e9}, "duration_seconds"),
        ({"duration_seconds": math.nan}, "duration_seconds"),
        ({"duration_seconds": -1.0}, "duration_seconds"),
        ({"prompt": "x" * 100_000}, "prompt"),
        ({"prompt": "a\0b"}, "prompt"),
    ],
)
async def test_bad_input_names_its_field(whole: House, fields: dict[str, object], field: str) -> None:
    request = storage.CreateGenerationRequest(**{"prompt": "techno", "duration_seconds": 1.0, **fields})  # type: ignore[arg-type]
    error = await refused(whole.music.CreateGeneration(request, timeout=SECONDS))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(read_error_details(error).violations) == [field]


async def test_a_batch_is_made_or_refused_as_one(whole: House) -> None:
    def request(**fields: Any) -> storage.CreateGenerationRequest:
        return storage.CreateGenerationRequest(**{"prompt": "a calm piano", "duration_seconds": 0.5, **fields})

    batch = storage.BatchCreateGenerationsRequest(requests=[request(seed=1), request(model_name="sketch", priority=3)])
    made = (await whole.music.BatchCreateGenerations(batch, timeout=SECONDS)).generations
    assert [(row.model_name, row.sample_rate_hz, row.priority) for row in made] == [
        ("sketch", RATE, 0),
        ("sketch", RATE, 3),
    ]
    for row in made:
        assert (await finished(whole, row.id)).state == storage.GENERATION_STATE_COMPLETED
    for requests, field in (
        ([request(), request(model_name="none")], "requests[1].model_name"),
        ([request(duration_seconds=1e6)], "requests[0].duration_seconds"),
        ([request(), request(prompt="")], "requests[1].prompt"),
        ([request()] * 101, "requests"),
        ([], "requests"),
    ):
        error = await refused(
            whole.music.BatchCreateGenerations(
                storage.BatchCreateGenerationsRequest(requests=requests), timeout=SECONDS
            )
        )
        assert list(read_error_details(error).violations) == [field]
    figures = await whole.music.GetStatistics(storage.GetStatisticsRequest(), timeout=SECONDS)
    assert figures.total_generations == 2


async def test_an_unknown_model_names_those_there_are(whole: House) -> None:
    request = storage.CreateGenerationRequest(prompt="techno", duration_seconds=1.0, model_name="musicgen-huge")
    failure = read_error_details(await refused(whole.music.CreateGeneration(request, timeout=SECONDS)))
    assert "sketch" in failure.violations["model_name"]


async def test_what_a_service_refuses_is_refused_in_its_words(whole: House) -> None:
    request = storage.GetGenerationRequest(id=str(uuid.uuid4()))
    theirs = await refused(whole.storage.GetGeneration(request, timeout=SECONDS))
    ours = await refused(whole.music.GetGeneration(request, timeout=SECONDS))
    assert read_error_details(ours) == read_error_details(theirs)
    assert read_error_details(ours).reason == "GENERATION_NOT_FOUND"


async def test_a_service_that_is_away_is_named(idle: House) -> None:
    request = storage.CreateGenerationRequest(prompt="techno", duration_seconds=1.0)
    error = await refused(idle.music.CreateGeneration(request, timeout=SECONDS))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_listener_hears_all_of_a_generation_that_has_not_begun(idle: House) -> None:
    made = await create_idle(idle)
    listening = asyncio.create_task(heard(idle, made.id))
    claimed = await claim(idle)
    samples = await uploaded(idle, claimed.generation)
    assert await asyncio.wait_for(listening, SECONDS) == samples


async def heard(house: House, generation_id: str, start_frame: int = 0) -> bytes:
    request = export.StreamAudioRequest(generation_id=generation_id, start_frame=start_frame)
    reader, pcm = None, b""
    async for part in house.music.StreamAudio(request, timeout=SECONDS):
        match part.WhichOneof("part"):
            case "header":
                reader = PcmReader(part.header)
            case "chunk":
                assert reader is not None
                pcm += reader.accept(part.chunk)
            case "end":
                assert reader is not None
                reader.finish(part.end)
                return pcm
    raise AssertionError("the stream ended without an end")


def upload_of(generation_: storage.Generation, pcm: bytes) -> list[export.ExportRequest]:
    frames = len(pcm) // 8
    header = live_header(generation_.id, generation_.attempt, RATE, CHANNELS, frames)
    writer = PcmWriter(CHANNELS)
    return [
        export.ExportRequest(header=export.ExportHeader(audio=header, tags=export.Tags(model_name="sketch"))),
        *(export.ExportRequest(chunk=chunk) for chunk in writer.chunks(pcm)),
        export.ExportRequest(end=writer.end()),
    ]


async def uploaded(house: House, generation_: storage.Generation) -> bytes:
    """One second of a quiet ramp, sent to export as a worker would."""
    import numpy as np

    pcm = np.linspace(-0.1, 0.1, RATE * CHANNELS, dtype="<f4").tobytes()
    call = house.export.Export(iter(upload_of(generation_, pcm)), timeout=SECONDS)
    response = await call
    assert response.frames == RATE
    return pcm


@pytest.mark.parametrize("reason", ["GENERATION_FAILED", "GENERATION_CANCELLED"])
async def test_a_listener_learns_that_there_will_be_no_audio(idle: House, reason: str) -> None:
    made = await create_idle(idle)
    call = idle.music.StreamAudio(export.StreamAudioRequest(generation_id=made.id), timeout=SECONDS)
    listening = asyncio.create_task(refused(call))
    claimed = await claim(idle)
    if reason == "GENERATION_FAILED":
        await idle.storage.FailGeneration(
            storage.FailGenerationRequest(id=made.id, lease_token=claimed.lease_token, error_message="out of tune"),
            timeout=SECONDS,
        )
    else:
        await idle.music.CancelGeneration(storage.CancelGenerationRequest(id=made.id), timeout=SECONDS)
    error = await asyncio.wait_for(listening, SECONDS)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    failure = read_error_details(error)
    assert failure.reason == reason
    assert failure.metadata["error_message"] == ("out of tune" if reason == "GENERATION_FAILED" else "")

    # And who comes after that learns it at once.
    late = idle.music.StreamAudio(export.StreamAudioRequest(generation_id=made.id), timeout=SECONDS)
    assert read_error_details(await refused(late)).reason == reason


async def test_a_listener_to_a_deleted_generation_is_told(idle: House) -> None:
    made = await create_idle(idle)
    call = idle.music.StreamAudio(export.StreamAudioRequest(generation_id=made.id), timeout=SECONDS)
    listening = asyncio.create_task(refused(call))
    await idle.storage.DeleteGeneration(storage.DeleteGenerationRequest(id=made.id), timeout=SECONDS)
    assert (await asyncio.wait_for(listening, SECONDS)).code() is grpc.StatusCode.NOT_FOUND


async def test_an_unknown_id_is_not_waited_for(idle: House) -> None:
    call = idle.music.StreamAudio(export.StreamAudioRequest(generation_id=str(uuid.uuid4())), timeout=SECONDS)
    failure = read_error_details(await refused(call))
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "GENERATION_NOT_FOUND")


async def test_a_late_listener_joins_at_its_frame(whole: House) -> None:
    made = await finished(whole, (await create(whole)).id)
    pcm = await heard(whole, made.id)
    assert len(pcm) == RATE * CHANNELS * 4
    assert await heard(whole, made.id, start_frame=12_345) == pcm[12_345 * CHANNELS * 4 :]


async def test_a_live_stream_that_breaks_off_is_aborted(idle: House) -> None:
    made = await create_idle(idle)
    claimed = await claim(idle)
    parts = upload_of(claimed.generation, bytes(8 * RATE))
    upload = idle.export.Export(timeout=SECONDS)
    await upload.write(parts[0])
    await upload.write(parts[1])
    call = idle.music.StreamAudio(export.StreamAudioRequest(generation_id=made.id), timeout=SECONDS)
    kinds = [(await anext(aiter(call))).WhichOneof("part") for _ in range(2)]
    assert kinds == ["header", "chunk"]
    upload.cancel()
    assert (await refused(call)).code() is grpc.StatusCode.ABORTED


async def test_delete_takes_file_and_row(whole: House) -> None:
    made = await finished(whole, (await create(whole)).id)
    await whole.music.DeleteGeneration(storage.DeleteGenerationRequest(id=made.id), timeout=SECONDS)
    got = whole.storage.GetGeneration(storage.GetGenerationRequest(id=made.id), timeout=SECONDS)
    assert (await refused(got)).code() is grpc.StatusCode.NOT_FOUND
    gone = whole.export.DeleteFile(export.DeleteFileRequest(generation_id=made.id), timeout=SECONDS)
    assert (await refused(gone)).code() is grpc.StatusCode.NOT_FOUND


async def test_delete_that_broke_off_after_the_file_can_be_repeated(whole: House) -> None:
    made = await finished(whole, (await create(whole)).id)
    await whole.export.DeleteFile(export.DeleteFileRequest(generation_id=made.id), timeout=SECONDS)
    await whole.music.DeleteGeneration(storage.DeleteGenerationRequest(id=made.id), timeout=SECONDS)


async def test_delete_of_what_is_being_made_says_to_cancel_it(idle: House) -> None:
    made = await create_idle(idle)
    await claim(idle)
    request = storage.DeleteGenerationRequest(id=made.id)
    error = await refused(idle.music.DeleteGeneration(request, timeout=SECONDS))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "cancel" in (error.details() or "")
    await idle.music.CancelGeneration(storage.CancelGenerationRequest(id=made.id), timeout=SECONDS)
    await idle.music.DeleteGeneration(request, timeout=SECONDS)


async def test_delete_of_what_is_not_in_the_state_asked_for_any_more_deletes_nothing(whole: House) -> None:
    made = await finished(whole, (await create(whole)).id)
    failed = storage.DeleteGenerationRequest(id=made.id, state=storage.GENERATION_STATE_FAILED)
    error = await refused(whole.music.DeleteGeneration(failed, timeout=SECONDS))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "it is COMPLETED, and would have to be FAILED" in (error.details() or "")
    completed = storage.DeleteGenerationRequest(id=made.id, state=storage.GENERATION_STATE_COMPLETED)
    await whole.music.DeleteGeneration(completed, timeout=SECONDS)  # File and row are both there yet.


async def test_delete_of_what_waits(idle: House) -> None:
    made = await create_idle(idle)
    await idle.music.DeleteGeneration(storage.DeleteGenerationRequest(id=made.id), timeout=SECONDS)
    figures = await idle.music.GetStatistics(storage.GetStatisticsRequest(), timeout=SECONDS)
    assert figures.total_generations == 0


async def test_retry_of_what_failed(idle: House) -> None:
    made = await create_idle(idle)
    claimed = await claim(idle)
    await idle.storage.FailGeneration(
        storage.FailGenerationRequest(id=made.id, lease_token=claimed.lease_token, error_message="no"), timeout=SECONDS
    )
    again = await idle.music.RetryGeneration(storage.RetryGenerationRequest(id=made.id), timeout=SECONDS)
    assert again.generation.state == storage.GENERATION_STATE_PENDING


async def test_a_watcher_that_goes_frees_its_place_upstream(idle: House) -> None:
    made = await create_idle(idle)
    call = idle.music.WatchGeneration(storage.WatchGenerationRequest(id=made.id), timeout=SECONDS)
    assert (await anext(aiter(call))).generation.id == made.id
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_a_file_as_asked_for_and_a_render_of_it(whole: House) -> None:
    asked = OutputOptions(format="FILE_FORMAT_FLAC_24", sample_rate_hz=44_100, channels=1, target_lufs=-20)
    made = await finished(whole, (await create(whole, output=asked)).id)
    assert made.output == asked
    assert made.file_path.endswith(f"{made.id}.flac")
    known = made.metadata
    assert (known["file_format"], known["file_sample_rate_hz"], known["file_channels"]) == ("FLAC_24", 44_100, 1)
    assert known["frames"] == 44_100
    assert known["integrated_lufs"] == pytest.approx(-20, abs=0.05)

    request = export.RenderRequest(generation_id=made.id, output=OutputOptions(format="FILE_FORMAT_OGG_OPUS"))
    render = await whole.music.Render(request, timeout=SECONDS)
    assert await whole.music.Render(request, timeout=SECONDS) == render
    assert (render.file.sample_rate_hz, render.file.channels) == (48_000, 1)
    data = b""
    download = export.DownloadRequest(generation_id=made.id, render_id=render.render_id)
    async for part in whole.music.Download(download, timeout=SECONDS):
        data += part.data
    assert hashlib.sha256(data).hexdigest() == render.file.file_sha256
    listen = export.StreamAudioRequest(generation_id=made.id, render_id=render.render_id)
    parts = [part async for part in whole.music.StreamAudio(listen, timeout=SECONDS)]
    assert parts[0].header.sample_rate_hz == 48_000
    assert parts[-1].end.total_frames == 48_000

    await whole.music.DeleteGeneration(storage.DeleteGenerationRequest(id=made.id), timeout=SECONDS)
    error = await refused(whole.music.Download(download, timeout=SECONDS))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_file_that_can_not_be_is_refused_before_it_is_made(whole: House) -> None:
    request = storage.CreateGenerationRequest(
        prompt="techno", duration_seconds=1.0, output=OutputOptions(format="FILE_FORMAT_MP3", sample_rate_hz=96_000)
    )
    error = await refused(whole.music.CreateGeneration(request, timeout=SECONDS))
    assert list(read_error_details(error).violations) == ["output.sample_rate_hz"]
