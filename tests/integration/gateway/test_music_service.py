"""MusicService over a real connection, with the real services behind it."""

from __future__ import annotations

import asyncio
import hashlib
import math
import sys
import uuid
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.error_status import read_error_details
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.generation.v1 import generation_pb2 as generation
from dgx_music.pcm import PcmReader, PcmWriter, live_header
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.embedded_services import EmbeddedServices
from tests.support.failpoints import armed
from tests.support.library_files import exported

TIMEOUT_SECONDS = 60.0
RATE_HZ, CHANNELS = 32_000, 2


async def create(services: EmbeddedServices, **fields: object) -> storage.Generation:
    """Creates a generation through the gateway, which needs the generation service."""
    request = storage.CreateGenerationRequest(prompt="techno", duration_seconds=1.0)
    request.MergeFrom(storage.CreateGenerationRequest(**fields))  # type: ignore[arg-type]
    return (await services.music.CreateGeneration(request, timeout=TIMEOUT_SECONDS)).generation


async def create_pending(services: EmbeddedServices) -> storage.Generation:
    """Creates a generation at storage, where it stays PENDING until the test claims it."""
    request = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=1.0, sample_rate_hz=RATE_HZ, channels=CHANNELS
    )
    return (await services.storage.CreateGeneration(request, timeout=TIMEOUT_SECONDS)).generation


async def claim(services: EmbeddedServices) -> storage.ClaimGenerationResponse:
    request = storage.ClaimGenerationRequest(worker_id="test", model_names=["sketch"], lease_seconds=30, wait_seconds=5)
    return await services.storage.ClaimGeneration(request, timeout=TIMEOUT_SECONDS)


async def wait_until_finished(services: EmbeddedServices, generation_id: str) -> storage.Generation:
    last = storage.Generation()
    async for change in services.music.WatchGeneration(
        storage.WatchGenerationRequest(id=generation_id), timeout=TIMEOUT_SECONDS
    ):
        last = change.generation
    return last


async def error_of(call: object) -> grpc.aio.AioRpcError:
    """Returns the error that the call, unary or stream, fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (drain(call) if isinstance(call, grpc.aio.UnaryStreamCall) else call)  # type: ignore[misc]
    return caught.value


async def drain(call: grpc.aio.UnaryStreamCall[object, object]) -> None:
    async for _ in call:
        pass


async def test_generation_is_visible_through_every_method(all_services: EmbeddedServices) -> None:
    generated = await wait_until_finished(all_services, (await create(all_services, seed=7)).id)
    assert generated.state == storage.GENERATION_STATE_COMPLETED
    assert (generated.model_name, generated.sample_rate_hz, generated.channels, generated.seed) == (
        "sketch",
        RATE_HZ,
        CHANNELS,
        7,
    )

    got = await all_services.music.GetGeneration(storage.GetGenerationRequest(id=generated.id), timeout=TIMEOUT_SECONDS)
    assert got.generation == generated
    listed = await all_services.music.ListGenerations(storage.ListGenerationsRequest(), timeout=TIMEOUT_SECONDS)
    assert list(listed.generations) == [generated]
    data = b""
    async for part in all_services.music.Download(
        export.DownloadRequest(generation_id=generated.id), timeout=TIMEOUT_SECONDS
    ):
        data += part.data
    assert data[:4] == b"RIFF"
    assert len(data) == generated.file_size_bytes
    waveform = await all_services.music.GetWaveform(
        export.GetWaveformRequest(generation_id=generated.id, points=10), timeout=TIMEOUT_SECONDS
    )
    assert len(waveform.data) == 20
    prompts = await all_services.music.ListPrompts(storage.ListPromptsRequest(), timeout=TIMEOUT_SECONDS)
    assert [prompt.text for prompt in prompts.prompts] == ["techno"]
    statistics = await all_services.music.GetStatistics(storage.GetStatisticsRequest(), timeout=TIMEOUT_SECONDS)
    assert statistics.completed_generations == 1
    models = await all_services.music.ListModels(generation.ListModelsRequest(), timeout=TIMEOUT_SECONDS)
    assert [model.name for model in models.models] == ["sketch"]


async def test_create_with_same_request_id_returns_same_generation(all_services: EmbeddedServices) -> None:
    request_id = str(uuid.uuid4())
    first = await create(all_services, request_id=request_id)
    assert (await create(all_services, request_id=request_id)).id == first.id


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
async def test_create_with_invalid_field_names_the_field(
    all_services: EmbeddedServices, fields: dict[str, object], field: str
) -> None:
    request = storage.CreateGenerationRequest(**{"prompt": "techno", "duration_seconds": 1.0, **fields})  # type: ignore[arg-type]
    error = await error_of(all_services.music.CreateGeneration(request, timeout=TIMEOUT_SECONDS))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(read_error_details(error).violations) == [field]


async def test_batch_is_created_or_rejected_as_a_whole(all_services: EmbeddedServices) -> None:
    def request(**fields: Any) -> storage.CreateGenerationRequest:
        return storage.CreateGenerationRequest(**{"prompt": "a calm piano", "duration_seconds": 0.5, **fields})

    batch = storage.BatchCreateGenerationsRequest(requests=[request(seed=1), request(model_name="sketch", priority=3)])
    generated = (await all_services.music.BatchCreateGenerations(batch, timeout=TIMEOUT_SECONDS)).generations
    assert [(row.model_name, row.sample_rate_hz, row.priority) for row in generated] == [
        ("sketch", RATE_HZ, 0),
        ("sketch", RATE_HZ, 3),
    ]
    for row in generated:
        assert (await wait_until_finished(all_services, row.id)).state == storage.GENERATION_STATE_COMPLETED
    for requests, field in (
        ([request(), request(model_name="none")], "requests[1].model_name"),
        ([request(duration_seconds=1e6)], "requests[0].duration_seconds"),
        ([request(), request(prompt="")], "requests[1].prompt"),
        ([request()] * 101, "requests"),
        ([], "requests"),
    ):
        error = await error_of(
            all_services.music.BatchCreateGenerations(
                storage.BatchCreateGenerationsRequest(requests=requests), timeout=TIMEOUT_SECONDS
            )
        )
        assert list(read_error_details(error).violations) == [field]
    statistics = await all_services.music.GetStatistics(storage.GetStatisticsRequest(), timeout=TIMEOUT_SECONDS)
    assert statistics.total_generations == 2


async def test_create_with_unknown_model_lists_known_models(all_services: EmbeddedServices) -> None:
    request = storage.CreateGenerationRequest(prompt="techno", duration_seconds=1.0, model_name="musicgen-huge")
    failure = read_error_details(await error_of(all_services.music.CreateGeneration(request, timeout=TIMEOUT_SECONDS)))
    assert "sketch" in failure.violations["model_name"]


async def test_error_of_a_service_is_passed_on_unchanged(all_services: EmbeddedServices) -> None:
    request = storage.GetGenerationRequest(id=str(uuid.uuid4()))
    expected = await error_of(all_services.storage.GetGeneration(request, timeout=TIMEOUT_SECONDS))
    actual = await error_of(all_services.music.GetGeneration(request, timeout=TIMEOUT_SECONDS))
    assert read_error_details(actual) == read_error_details(expected)
    assert read_error_details(actual).reason == "GENERATION_NOT_FOUND"


async def test_create_without_generation_service_is_unimplemented(library_services: EmbeddedServices) -> None:
    request = storage.CreateGenerationRequest(prompt="techno", duration_seconds=1.0)
    error = await error_of(library_services.music.CreateGeneration(request, timeout=TIMEOUT_SECONDS))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_listener_before_start_receives_all_audio(library_services: EmbeddedServices) -> None:
    generated = await create_pending(library_services)
    listening = asyncio.create_task(receive_audio(library_services, generated.id))
    claimed = await claim(library_services)
    samples = await upload_ramp(library_services, claimed.generation)
    assert await asyncio.wait_for(listening, TIMEOUT_SECONDS) == samples


async def receive_audio(services: EmbeddedServices, generation_id: str, start_frame: int = 0) -> bytes:
    request = export.StreamAudioRequest(generation_id=generation_id, start_frame=start_frame)
    reader, pcm = None, b""
    async for part in services.music.StreamAudio(request, timeout=TIMEOUT_SECONDS):
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
    raise AssertionError("the stream ended without an end message")


def build_upload(generation_: storage.Generation, pcm: bytes) -> list[export.ExportRequest]:
    frames = len(pcm) // 8
    header = live_header(generation_.id, generation_.attempt, RATE_HZ, CHANNELS, frames)
    writer = PcmWriter(CHANNELS)
    return [
        export.ExportRequest(header=export.ExportHeader(audio=header, tags=export.Tags(model_name="sketch"))),
        *(export.ExportRequest(chunk=chunk) for chunk in writer.chunks(pcm)),
        export.ExportRequest(end=writer.end()),
    ]


async def upload_ramp(services: EmbeddedServices, generation_: storage.Generation) -> bytes:
    """Sends one second of a quiet ramp to export, as a worker does. Returns its PCM."""
    import numpy as np

    pcm = np.linspace(-0.1, 0.1, RATE_HZ * CHANNELS, dtype="<f4").tobytes()
    call = services.export.Export(iter(build_upload(generation_, pcm)), timeout=TIMEOUT_SECONDS)
    response = await call
    assert response.frames == RATE_HZ
    return pcm


@pytest.mark.parametrize("reason", ["GENERATION_FAILED", "GENERATION_CANCELLED"])
async def test_listener_is_told_if_generation_fails_or_is_cancelled(
    library_services: EmbeddedServices, reason: str
) -> None:
    generated = await create_pending(library_services)
    call = library_services.music.StreamAudio(
        export.StreamAudioRequest(generation_id=generated.id), timeout=TIMEOUT_SECONDS
    )
    listening = asyncio.create_task(error_of(call))
    claimed = await claim(library_services)
    if reason == "GENERATION_FAILED":
        await library_services.storage.FailGeneration(
            storage.FailGenerationRequest(
                id=generated.id, lease_token=claimed.lease_token, error_message="out of tune"
            ),
            timeout=TIMEOUT_SECONDS,
        )
    else:
        await library_services.music.CancelGeneration(
            storage.CancelGenerationRequest(id=generated.id), timeout=TIMEOUT_SECONDS
        )
    error = await asyncio.wait_for(listening, TIMEOUT_SECONDS)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    failure = read_error_details(error)
    assert failure.reason == reason
    assert failure.metadata["error_message"] == ("out of tune" if reason == "GENERATION_FAILED" else "")

    # A listener that joins later is told immediately.
    late = library_services.music.StreamAudio(
        export.StreamAudioRequest(generation_id=generated.id), timeout=TIMEOUT_SECONDS
    )
    assert read_error_details(await error_of(late)).reason == reason


async def test_listener_to_deleted_generation_gets_not_found(library_services: EmbeddedServices) -> None:
    generated = await create_pending(library_services)
    call = library_services.music.StreamAudio(
        export.StreamAudioRequest(generation_id=generated.id), timeout=TIMEOUT_SECONDS
    )
    listening = asyncio.create_task(error_of(call))
    await library_services.storage.DeleteGeneration(
        storage.DeleteGenerationRequest(id=generated.id), timeout=TIMEOUT_SECONDS
    )
    assert (await asyncio.wait_for(listening, TIMEOUT_SECONDS)).code() is grpc.StatusCode.NOT_FOUND


async def test_listener_to_unknown_id_gets_not_found_immediately(library_services: EmbeddedServices) -> None:
    call = library_services.music.StreamAudio(
        export.StreamAudioRequest(generation_id=str(uuid.uuid4())), timeout=TIMEOUT_SECONDS
    )
    failure = read_error_details(await error_of(call))
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "GENERATION_NOT_FOUND")


async def test_listener_can_start_at_any_frame(all_services: EmbeddedServices) -> None:
    generated = await wait_until_finished(all_services, (await create(all_services)).id)
    pcm = await receive_audio(all_services, generated.id)
    assert len(pcm) == RATE_HZ * CHANNELS * 4
    assert await receive_audio(all_services, generated.id, start_frame=12_345) == pcm[12_345 * CHANNELS * 4 :]


async def test_listener_gets_aborted_if_upload_breaks_off(library_services: EmbeddedServices) -> None:
    generated = await create_pending(library_services)
    claimed = await claim(library_services)
    parts = build_upload(claimed.generation, bytes(8 * RATE_HZ))
    upload = library_services.export.Export(timeout=TIMEOUT_SECONDS)
    await upload.write(parts[0])
    await upload.write(parts[1])
    call = library_services.music.StreamAudio(
        export.StreamAudioRequest(generation_id=generated.id), timeout=TIMEOUT_SECONDS
    )
    kinds = [(await anext(aiter(call))).WhichOneof("part") for _ in range(2)]
    assert kinds == ["header", "chunk"]
    upload.cancel()
    assert (await error_of(call)).code() is grpc.StatusCode.ABORTED


async def test_delete_removes_file_and_row(all_services: EmbeddedServices) -> None:
    generated = await wait_until_finished(all_services, (await create(all_services)).id)
    await all_services.music.DeleteGeneration(storage.DeleteGenerationRequest(id=generated.id), timeout=TIMEOUT_SECONDS)
    got = all_services.storage.GetGeneration(storage.GetGenerationRequest(id=generated.id), timeout=TIMEOUT_SECONDS)
    assert (await error_of(got)).code() is grpc.StatusCode.NOT_FOUND
    gone = all_services.export.DeleteFile(export.DeleteFileRequest(generation_id=generated.id), timeout=TIMEOUT_SECONDS)
    assert (await error_of(gone)).code() is grpc.StatusCode.NOT_FOUND


async def test_delete_interrupted_after_the_file_can_be_repeated(all_services: EmbeddedServices) -> None:
    generated = await wait_until_finished(all_services, (await create(all_services)).id)
    await all_services.export.DeleteFile(export.DeleteFileRequest(generation_id=generated.id), timeout=TIMEOUT_SECONDS)
    await all_services.music.DeleteGeneration(storage.DeleteGenerationRequest(id=generated.id), timeout=TIMEOUT_SECONDS)


async def test_delete_while_processing_says_to_cancel_first(library_services: EmbeddedServices) -> None:
    generated = await create_pending(library_services)
    await claim(library_services)
    request = storage.DeleteGenerationRequest(id=generated.id)
    error = await error_of(library_services.music.DeleteGeneration(request, timeout=TIMEOUT_SECONDS))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "cancel" in (error.details() or "")
    await library_services.music.CancelGeneration(
        storage.CancelGenerationRequest(id=generated.id), timeout=TIMEOUT_SECONDS
    )
    await library_services.music.DeleteGeneration(request, timeout=TIMEOUT_SECONDS)


async def test_delete_in_other_state_than_requested_deletes_nothing(all_services: EmbeddedServices) -> None:
    generated = await wait_until_finished(all_services, (await create(all_services)).id)
    failed = storage.DeleteGenerationRequest(id=generated.id, state=storage.GENERATION_STATE_FAILED)
    error = await error_of(all_services.music.DeleteGeneration(failed, timeout=TIMEOUT_SECONDS))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "it is COMPLETED, but must be FAILED" in (error.details() or "")
    completed = storage.DeleteGenerationRequest(id=generated.id, state=storage.GENERATION_STATE_COMPLETED)
    await all_services.music.DeleteGeneration(
        completed, timeout=TIMEOUT_SECONDS
    )  # The file and the row were both still there.


async def test_delete_while_pending_removes_row(library_services: EmbeddedServices) -> None:
    generated = await create_pending(library_services)
    await library_services.music.DeleteGeneration(
        storage.DeleteGenerationRequest(id=generated.id), timeout=TIMEOUT_SECONDS
    )
    statistics = await library_services.music.GetStatistics(storage.GetStatisticsRequest(), timeout=TIMEOUT_SECONDS)
    assert statistics.total_generations == 0


async def test_retry_after_failure_is_pending_again(library_services: EmbeddedServices) -> None:
    generated = await create_pending(library_services)
    claimed = await claim(library_services)
    await library_services.storage.FailGeneration(
        storage.FailGenerationRequest(id=generated.id, lease_token=claimed.lease_token, error_message="no"),
        timeout=TIMEOUT_SECONDS,
    )
    again = await library_services.music.RetryGeneration(
        storage.RetryGenerationRequest(id=generated.id), timeout=TIMEOUT_SECONDS
    )
    assert again.generation.state == storage.GENERATION_STATE_PENDING


async def test_cancel_removes_the_samples_kept_for_another_attempt(
    library_services: EmbeddedServices, tmp_path: Path
) -> None:
    await create_pending(library_services)
    claimed = await claim(library_services)
    with armed("export.before_fsync:EIO"):
        error = await error_of(exported(library_services, claimed.generation.id))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    failure = storage.FailGenerationRequest(
        id=claimed.generation.id, lease_token=claimed.lease_token, error_message="no file", retryable=True
    )
    await library_services.storage.FailGeneration(failure, timeout=TIMEOUT_SECONDS)
    assert list((tmp_path / "spool").iterdir())
    request = storage.CancelGenerationRequest(id=claimed.generation.id)
    cancelled = await library_services.music.CancelGeneration(request, timeout=TIMEOUT_SECONDS)
    assert cancelled.generation.state == storage.GENERATION_STATE_CANCELLED
    assert not list((tmp_path / "spool").iterdir())


async def test_watch_can_be_cancelled(library_services: EmbeddedServices) -> None:
    generated = await create_pending(library_services)
    call = library_services.music.WatchGeneration(
        storage.WatchGenerationRequest(id=generated.id), timeout=TIMEOUT_SECONDS
    )
    assert (await anext(aiter(call))).generation.id == generated.id
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_output_options_and_render_are_applied(all_services: EmbeddedServices) -> None:
    options = OutputOptions(format="FILE_FORMAT_FLAC_24", sample_rate_hz=44_100, channels=1, target_lufs=-20)
    generated = await wait_until_finished(all_services, (await create(all_services, output=options)).id)
    assert generated.output == options
    assert generated.file_path.endswith(f"{generated.id}.flac")
    known = generated.metadata
    assert (known["file_format"], known["file_sample_rate_hz"], known["file_channels"]) == ("FLAC_24", 44_100, 1)
    assert known["frames"] == 44_100
    assert known["integrated_lufs"] == pytest.approx(-20, abs=0.05)

    request = export.RenderRequest(generation_id=generated.id, output=OutputOptions(format="FILE_FORMAT_OGG_OPUS"))
    render = await all_services.music.Render(request, timeout=TIMEOUT_SECONDS)
    assert await all_services.music.Render(request, timeout=TIMEOUT_SECONDS) == render
    assert (render.file.sample_rate_hz, render.file.channels) == (48_000, 1)
    data = b""
    download = export.DownloadRequest(generation_id=generated.id, render_id=render.render_id)
    async for part in all_services.music.Download(download, timeout=TIMEOUT_SECONDS):
        data += part.data
    assert hashlib.sha256(data).hexdigest() == render.file.file_sha256
    listen = export.StreamAudioRequest(generation_id=generated.id, render_id=render.render_id)
    parts = [part async for part in all_services.music.StreamAudio(listen, timeout=TIMEOUT_SECONDS)]
    assert parts[0].header.sample_rate_hz == 48_000
    assert parts[-1].end.total_frames == 48_000

    await all_services.music.DeleteGeneration(storage.DeleteGenerationRequest(id=generated.id), timeout=TIMEOUT_SECONDS)
    error = await error_of(all_services.music.Download(download, timeout=TIMEOUT_SECONDS))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_create_with_impossible_output_options_is_rejected(all_services: EmbeddedServices) -> None:
    request = storage.CreateGenerationRequest(
        prompt="techno", duration_seconds=1.0, output=OutputOptions(format="FILE_FORMAT_MP3", sample_rate_hz=96_000)
    )
    error = await error_of(all_services.music.CreateGeneration(request, timeout=TIMEOUT_SECONDS))
    assert list(read_error_details(error).violations) == ["output.sample_rate_hz"]


async def test_format_without_its_encoder_is_refused_before_anything_is_generated(
    all_services: EmbeddedServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    options = OutputOptions(format="FILE_FORMAT_M4A_AAC")
    error = read_error_details(await error_of(create(all_services, output=options)))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "M4A_NOT_INSTALLED")
    listed = await all_services.music.ListGenerations(storage.ListGenerationsRequest(), timeout=TIMEOUT_SECONDS)
    assert not listed.generations
    await create(all_services, output=OutputOptions(format="FILE_FORMAT_MP3"))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (OutputOptions(format="FILE_FORMAT_MP3", bit_rate_kbps=97), "output.bit_rate_kbps"),
        (OutputOptions(format="FILE_FORMAT_AIFF_FLOAT", sample_rate_hz=192_000), "output.format"),
    ],
)
async def test_options_that_do_not_suit_the_model_are_refused(
    library_services: EmbeddedServices, options: OutputOptions, field: str
) -> None:
    request = storage.CreateGenerationRequest(
        prompt="techno", model_name="sketch", duration_seconds=3600.0, sample_rate_hz=RATE_HZ, channels=CHANNELS
    )
    request.output.CopyFrom(options)
    error = await error_of(library_services.storage.CreateGeneration(request, timeout=TIMEOUT_SECONDS))
    assert list(read_error_details(error).violations) == [field]
