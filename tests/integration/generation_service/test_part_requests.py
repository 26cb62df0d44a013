"""GetMidi and StreamStems: what the sketch plays, read back and compared with what is heard."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import AsyncIterator
from unittest.mock import patch

import google_crc32c
import grpc.aio
import mido
import numpy as np
import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.export.v1 import export_pb2
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc
from dgx_music.storage.v1 import storage_pb2
from generation_service.models.base import FloatArray
from generation_service.parts.part_slots import MAX_PART_REQUESTS
from generation_service.parts.stem_separation import DemucsSeparator

RATE_HZ = 32_000
UNKNOWN_ID = str(uuid.UUID(int=7))


@pytest.fixture
async def stub(services) -> AsyncIterator[generation_pb2_grpc.GenerationServiceAsyncStub]:
    async with connect(services.addresses["generation"]) as channel:
        yield generation_pb2_grpc.GenerationServiceStub(channel)


async def finished_sketch(services, seconds: float = 8.0, prompt: str = "") -> storage_pb2.Generation:
    prompt = prompt or "lo-fi piano with a bass at 84 BPM in A minor"
    fields = {"model_name": "sketch", "sample_rate_hz": RATE_HZ, "channels": 2, "seed": 7}
    done = await services.wait_until_ended(await services.create(prompt, seconds, **fields))
    assert done.state == storage_pb2.GENERATION_STATE_COMPLETED, done.error_message
    return done


async def live_samples(services, generation_id: str) -> FloatArray:
    request = export_pb2.StreamAudioRequest(generation_id=generation_id, level=audio_pb2.AUDIO_LEVEL_LIVE)
    parts = [part async for part in services.export.StreamAudio(request, timeout=60)]
    return np.frombuffer(b"".join(part.chunk.pcm for part in parts), "<f4").reshape(-1, 2)


async def read_stems(stub, generation_id: str) -> tuple[pb.StemsHeader, dict[str, FloatArray]]:
    pcm: list[bytearray] = []
    total_chunks, is_complete = 0, False
    header = pb.StemsHeader()
    async for part in stub.StreamStems(pb.StreamStemsRequest(generation_id=generation_id), timeout=60):
        match part.WhichOneof("message"):
            case "header":
                header = part.header
                pcm = [bytearray() for _ in header.names]
            case "chunk":
                assert part.chunk.start_frame == len(pcm[part.chunk.stem]) // 8
                assert google_crc32c.value(part.chunk.pcm) == part.chunk.crc32c
                pcm[part.chunk.stem] += part.chunk.pcm
                total_chunks += 1
            case "end":
                is_complete = part.end.total_chunks == total_chunks
    assert is_complete
    stems = [np.frombuffer(bytes(samples), "<f4").reshape(-1, 2) for samples in pcm]
    return header, dict(zip(header.names, stems, strict=True))


async def test_stems_add_up_to_the_samples_that_were_generated(services, stub) -> None:
    done = await finished_sketch(services)
    header, stems = await read_stems(stub, done.id)
    assert header.names == ["drums", "bass", "chords", "melody", "texture"]
    assert (header.sample_rate_hz, header.channels, header.total_frames) == (RATE_HZ, 2, 8 * RATE_HZ)
    assert header.origin == pb.PART_ORIGIN_COMPOSED
    assert header.file_gain_db == pytest.approx(done.metadata["gain_db"])
    live = await live_samples(services, done.id)
    mix = np.zeros_like(live)
    for samples in reversed(stems.values()):  # In another order, because the sum is exact in any.
        assert np.any(samples)
        mix += samples
    assert np.array_equal(mix, live)


async def test_midi_has_tempo_key_sections_and_the_notes_that_are_heard(services, stub) -> None:
    done = await finished_sketch(services, 12.0, "solo piano at 90 BPM in F# minor")
    response = await stub.GetMidi(pb.GetMidiRequest(generation_id=done.id), timeout=60)
    assert response.origin == pb.PART_ORIGIN_COMPOSED
    file = mido.MidiFile(file=io.BytesIO(response.midi), charset="utf-8")
    assert file.type == 1
    conductor = {message.type: message for message in file.tracks[0]}
    assert mido.tempo2bpm(conductor["set_tempo"].tempo) == pytest.approx(90, abs=0.01)
    assert conductor["key_signature"].key == "F#m"
    assert (conductor["time_signature"].numerator, conductor["time_signature"].denominator) == (4, 4)
    assert file.length == pytest.approx(12.0, abs=0.002)
    assert all(program.program == 0 for track in file.tracks for program in track if program.type == "program_change")

    seconds, onsets = 0.0, []
    for message in file:
        seconds += message.time
        if message.type == "note_on" and message.velocity:
            onsets.append(seconds)
    # Where a note begins after a rest in the score, the sound rises within a few milliseconds.
    live = np.abs(await live_samples(services, done.id)).max(axis=1)
    first = min(onsets)
    rising = np.flatnonzero(live > 0.02 * live.max())[0] / RATE_HZ
    assert rising == pytest.approx(first, abs=0.012)


@pytest.mark.parametrize("method", ["GetMidi", "StreamStems"])
async def test_what_has_no_parts_says_why(services, stub, method: str) -> None:
    async def failure(generation_id: str) -> tuple[str, str]:
        request = {"GetMidi": pb.GetMidiRequest, "StreamStems": pb.StreamStemsRequest}[method]
        call = getattr(stub, method)(request(generation_id=generation_id), timeout=60)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call if method == "GetMidi" else [part async for part in call]
        return caught.value.code().name, read_error_details(caught.value).reason

    assert await failure("x") == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert await failure(UNKNOWN_ID) == ("NOT_FOUND", "GENERATION_NOT_FOUND")
    other = await services.wait_until_ended(await services.create())
    services.generation._servicer.parts._build_separator = separator_without_weights
    reason = {"GetMidi": "NOTES_UNKNOWN", "StreamStems": "STEM_SEPARATION_UNAVAILABLE"}[method]
    assert await failure(other.id) == ("FAILED_PRECONDITION", reason)

    # A model that this server does not run: another worker claims it, and completes it as version 1.
    await services.stop("generation")
    old = await services.create("house", model_name="sketch", sample_rate_hz=RATE_HZ)
    claim = storage_pb2.ClaimGenerationRequest(worker_id="old", model_names=["sketch"], lease_seconds=60)
    job = await services.storage.ClaimGeneration(claim, timeout=60)
    await services.start("generation")
    assert await failure(old) == ("FAILED_PRECONDITION", "GENERATION_NOT_COMPLETED")
    completion = storage_pb2.CompleteGenerationRequest(
        id=old, lease_token=job.lease_token, file_path="a.wav", file_size_bytes=1000, generation_time_seconds=1.0,
        model_version="1",
    )  # fmt: skip
    await services.storage.CompleteGeneration(completion, timeout=60)
    assert await failure(old) == ("FAILED_PRECONDITION", "MODEL_VERSION_CHANGED")


def separator_without_weights() -> DemucsSeparator:
    """Whether demucs is installed or not, its weights are in no folder that does not exist."""
    with patch.dict(os.environ, HF_HUB_CACHE="/nowhere"):
        return DemucsSeparator()


class Halves:
    """A separator whose stems are known: a third and two thirds of what it gets, at another rate than the model's."""

    names = ("third", "rest")
    sample_rate_hz = 11_025
    longest = 0

    def separate(self, samples: FloatArray) -> FloatArray:
        type(self).longest = max(self.longest, len(samples))
        return np.stack([samples / 3, samples * 2 / 3]).astype(np.float32)


async def test_audio_of_other_models_is_separated_window_by_window(services, stub) -> None:
    services.generation._servicer.parts._build_separator = Halves
    done = await services.wait_until_ended(await services.create(seconds=61.3))
    header, stems = await read_stems(stub, done.id)
    assert list(stems) == ["third", "rest"]
    assert header.origin == pb.PART_ORIGIN_ESTIMATED
    assert (header.sample_rate_hz, header.channels, header.total_frames) == (11_025, 2, round(61.3 * 11_025))
    assert Halves.longest < 30 * 11_025  # Memory does not grow with the length.
    request = export_pb2.StreamAudioRequest(
        generation_id=done.id, level=audio_pb2.AUDIO_LEVEL_FINAL, sample_rate_hz=11_025, channels=2
    )
    parts = [part async for part in services.export.StreamAudio(request, timeout=60)]
    audio = np.frombuffer(b"".join(part.chunk.pcm for part in parts), "<f4").reshape(-1, 2)
    count = min(len(audio), header.total_frames)
    assert np.allclose(stems["third"][:count] + stems["rest"][:count], audio[:count], atol=1e-6)


@pytest.mark.slow
async def test_places_are_limited_and_freed_when_a_reader_leaves(services, stub) -> None:
    done = await finished_sketch(services, 60.0, "house at 124 BPM")
    request = pb.StreamStemsRequest(generation_id=done.id)
    calls = [stub.StreamStems(request, timeout=60) for _ in range(MAX_PART_REQUESTS)]
    for call in calls:
        assert (await call.read()).HasField("header")
    with pytest.raises(grpc.aio.AioRpcError, match="requests for stems or MIDI") as caught:
        await stub.GetMidi(pb.GetMidiRequest(generation_id=done.id), timeout=60)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()
    header, stems = await read_stems(stub, (await finished_sketch(services, 1.0)).id)
    assert len(stems) == len(header.names)
