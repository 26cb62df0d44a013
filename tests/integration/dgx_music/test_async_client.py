"""`AsyncClient` against real services."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgx_music import AsyncClient, AsyncGeneration
from dgx_music.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    GenerationCancelled,
    InvalidArgument,
    NotFound,
)


@pytest.fixture
async def generation(async_client: AsyncClient) -> AsyncGeneration:
    """A finished generation of two seconds."""
    return await async_client.generate("house at 124 BPM", duration=2, seed=7)


async def test_generate_reports_progress_and_returns_what_was_measured(async_client: AsyncClient) -> None:
    seen: list[tuple[str, float]] = []
    generation = await async_client.generate(
        "house at 124 BPM in A minor",
        duration=6,
        seed=7,
        metadata={"mine": [1, "two"]},
        on_progress=lambda generation: seen.append((generation.state, generation.progress)),
    )
    assert seen[-1] == ("completed", 1.0)
    assert generation.state == "completed"
    assert generation.is_finished
    assert (generation.prompt, generation.model, generation.duration) == ("house at 124 BPM in A minor", "sketch", 6.0)
    assert (generation.seed, generation.sample_rate, generation.channels) == (7, 32_000, 2)
    assert generation.loudness == pytest.approx(-16, abs=0.1)
    assert generation.true_peak is not None
    assert generation.true_peak <= -1
    assert (generation.tempo, generation.key) == (124.0, "A minor")
    assert generation.metadata["mine"] == [1, "two"]
    assert generation.stage is None
    assert generation.error is None
    assert generation.file_path is not None
    assert datetime.now(UTC) - generation.created_at < timedelta(minutes=10)


async def test_samples_are_those_of_the_file(generation: AsyncGeneration, tmp_path: Path) -> None:
    path = await generation.save(tmp_path / "a.wav")
    samples, rate = soundfile.read(path, dtype="float32")
    audio = await generation.audio()
    assert audio.dtype == np.float32
    assert audio.shape == (64_000, 2)
    assert rate == generation.sample_rate
    np.testing.assert_array_equal(audio, samples)
    assert await generation.read() == path.read_bytes()


async def test_extension_chooses_the_format(generation: AsyncGeneration, tmp_path: Path) -> None:
    saved = [
        await generation.save(tmp_path / "a.wav", bit_depth=16),
        await generation.save(tmp_path / "a.flac"),
        await generation.save(tmp_path / "a.MP3", bit_rate=192),
        await generation.save(tmp_path / "plain"),
        await generation.save(tmp_path / "mono.ogg", format="ogg", channels=1, sample_rate=16_000),
    ]
    found = [(info.format, info.subtype, info.channels, info.samplerate) for info in map(soundfile.info, saved)]
    assert found == [
        ("WAV", "PCM_16", 2, 32_000),
        ("FLAC", "PCM_24", 2, 32_000),
        ("MP3", "MPEG_LAYER_III", 2, 32_000),
        ("WAV", "PCM_24", 2, 32_000),
        ("OGG", "VORBIS", 1, 16_000),
    ]
    (named,) = {await generation.save(tmp_path)} - set(saved)
    assert named == tmp_path / f"{generation.id}.wav"
    assert not list(tmp_path.glob(".*"))


async def test_save_names_what_is_wrong_and_leaves_nothing(
    async_client: AsyncClient, generation: AsyncGeneration, tmp_path: Path
) -> None:
    for path, options, argument, text in (
        (tmp_path / "none" / "a.wav", {}, "path", f"the folder {tmp_path / 'none'} does not exist"),
        (Path("/dev/null"), {}, "path", "/dev/null is not a regular file"),
        (tmp_path / "a.xyz", {}, "path", ".xyz is the extension of no format that can be written; use .wav, "),
        (tmp_path / "a.wav", {"format": "wave"}, "format", "'wave' is not a format; use one of wav, "),
        (tmp_path / "a.flac", {"bit_depth": 32}, "bit_depth", "32 is not a bit depth of the format 'flac'"),
        (tmp_path / "a.mp3", {"sample_rate": 96_000}, "sample_rate", "MP3 does not support 96000 Hz"),
        (tmp_path / "a.wav", {"loudness": "loud"}, "loudness", "one of streaming, default, broadcast, none"),
    ):
        with pytest.raises(InvalidArgument, match=argument) as caught:
            await generation.save(path, **options)  # type: ignore[arg-type]
        assert caught.value.field == argument
        assert text in str(caught.value)
    unfinished = await async_client.submit("a", duration=600, priority=-10)
    with pytest.raises(FailedPrecondition, match="wait"):
        await unfinished.save(tmp_path / "a.wav")
    await unfinished.cancel()
    assert list(tmp_path.iterdir()) == []


async def test_stream_has_the_samples_as_they_were_generated(async_client: AsyncClient) -> None:
    sha256, frames = hashlib.sha256(), 0
    async with async_client.stream("house at 124 BPM", duration=3, seed=7) as stream:
        assert (stream.sample_rate, stream.channels, stream.expected_frames) == (32_000, 2, 96_000)
        async for chunk in stream:
            assert chunk.start_frame == frames
            assert chunk.samples.shape == (chunk.frames, 2)
            frames += chunk.frames
            sha256.update(chunk.pcm)
    assert stream.generation is not None
    generation = await stream.generation.wait()
    assert frames == 96_000
    assert sha256.hexdigest() == generation.metadata["pcm_sha256"]

    rest = [chunk async for chunk in generation.stream(start_frame=95_000)]
    assert sum(chunk.frames for chunk in rest) == 1000
    again = [chunk async for chunk in async_client.stream(generation.id, start_frame=96_000)]
    assert again == []


async def test_stream_that_is_not_started_says_so(async_client: AsyncClient) -> None:
    stream = async_client.stream("a")
    with pytest.raises(RuntimeError, match="async with"):
        _ = stream.sample_rate
    await stream.aclose()


async def test_many_are_submitted_with_common_and_own_options(async_client: AsyncClient) -> None:
    first, second = await async_client.submit_many(
        ["a calm piano", {"prompt": "drums", "duration": 1, "seed": 5}], duration=0.5, seed=3
    )
    await asyncio.gather(first.wait(), second.wait())
    assert [(one.duration, one.seed) for one in (first, second)] == [(0.5, 3), (1.0, 5)]
    with pytest.raises(InvalidArgument) as caught:
        await async_client.submit_many(["a", {"prompt": "b", "duration": 0}])
    assert caught.value.field == "requests[1].duration"
    with pytest.raises(InvalidArgument) as caught:
        await async_client.submit_many(["a", {"prompt": "b", "format": "tape"}])
    assert caught.value.field == "requests[1].format"


async def test_more_than_a_batch_are_submitted_in_order(
    async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgx_music.client.async_client.MAX_BATCH_SIZE", 2)
    prompts = [f"prompt {number}" for number in range(5)]
    assert [one.prompt for one in await async_client.submit_many(prompts, duration=0.1)] == prompts


async def test_history_is_filtered(async_client: AsyncClient) -> None:
    word = uuid.uuid4().hex
    ids = [(await async_client.generate(f"{word} {n}", duration=0.5)).id for n in range(3)]
    await async_client.rate(ids[0], 4)

    async def found(**filters: object) -> list[str]:
        return [one.id async for one in async_client.history(search=word, **filters)]  # type: ignore[arg-type]

    assert await found() == ids[::-1]
    assert await found(limit=2) == [ids[2], ids[1]]
    assert await found(limit=0) == []
    assert await found(min_rating=4, state="completed", model="sketch") == [ids[0]]
    assert await found(state=["failed", "cancelled"]) == []
    assert await found(min_bpm=1.0, max_bpm=1000.0) == ids[::-1]
    assert await found(max_bpm=1.0) == []
    assert {*await found(key="C major")} <= {*ids}
    now = datetime.now().astimezone()
    assert await found(created_before=now - timedelta(days=1)) == []
    assert await found(created_after=now - timedelta(days=1), created_before=now + timedelta(days=1)) == ids[::-1]
    with pytest.raises(InvalidArgument, match="state: must be one of pending, "):
        await found(state="done")
    with pytest.raises(InvalidArgument, match="limit: must not be negative"):
        await found(limit=-1)


async def test_wait_ends_as_the_generation_does(async_client: AsyncClient) -> None:
    slow = await async_client.submit("slow", duration=3000, priority=-10)
    with pytest.raises(DeadlineExceeded, match="is still"):
        await slow.wait(timeout=0.1)
    with pytest.raises(DeadlineExceeded, match="did not end within its timeout"):
        _ = [chunk async for chunk in slow.stream(timeout=0.1)]
    waiting = asyncio.ensure_future(slow.wait())
    await async_client.cancel(slow.id)
    with pytest.raises(GenerationCancelled) as caught:
        await waiting
    assert caught.value.metadata["id"] == slow.id
    with pytest.raises(GenerationCancelled):
        _ = [chunk async for chunk in slow.stream()]
    with pytest.raises(FailedPrecondition):
        await async_client.retry(slow.id)


async def test_deleted_generation_is_not_found(async_client: AsyncClient, generation: AsyncGeneration) -> None:
    await async_client.delete(generation.id)
    for call in (async_client.get(generation.id), generation.wait(), generation.refresh(), generation.waveform()):
        with pytest.raises(NotFound):
            await call


async def test_cancelled_generate_cancels_the_generation(async_client: AsyncClient) -> None:
    word = uuid.uuid4().hex
    started = asyncio.Event()
    task = asyncio.ensure_future(
        async_client.generate(word, duration=3000, priority=-10, on_progress=lambda _: started.set())
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (generation,) = [one async for one in async_client.history(search=word)]
    assert generation.state == "cancelled"


async def test_same_request_id_gives_the_same_generation(async_client: AsyncClient) -> None:
    request_id = str(uuid.uuid4())
    first = await async_client.submit("a", duration=0.5, seed=1, request_id=request_id)
    assert (await async_client.submit("a", duration=0.5, seed=1, request_id=request_id)).id == first.id
    assert (await async_client.submit("a", duration=0.5, seed=1)).id != first.id


async def test_clip_is_imported_streamed_and_downloaded(
    async_client: AsyncClient, generation: AsyncGeneration, tmp_path: Path
) -> None:
    clip = await async_client.import_clip(await generation.save(tmp_path / "a.wav"))
    assert clip.frames == 64_000
    async with async_client.stream(clip.clip_id) as stream:
        assert stream.generation is None
        assert sum([chunk.frames async for chunk in stream]) == 64_000
    assert (await async_client.download(clip.clip_id, tmp_path / "clip")).stat().st_size > 64_000
    with pytest.raises(InvalidArgument, match="continue_from: model 'sketch' can't continue audio"):
        await async_client.submit("go on", continue_from=clip, continue_seconds=1)
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(InvalidArgument) as caught:
        await async_client.import_clip(tmp_path / "text.wav")
    assert caught.value.field == "path"
    with pytest.raises(FileNotFoundError):
        await async_client.import_clip(tmp_path / "none.wav")


async def test_render_is_downloaded_by_its_id(
    async_client: AsyncClient, generation: AsyncGeneration, tmp_path: Path
) -> None:
    render = await async_client.render(generation.id, format="opus", loudness=-20)
    path = await async_client.download(generation.id, tmp_path, render_id=render.render_id)
    assert path.suffix == ".opus"
    assert path.read_bytes() == await generation.read(format="opus", loudness=-20)


async def test_closed_client_says_so(address: str) -> None:
    client = AsyncClient(address)
    await client.models()
    await client.aclose()
    await client.aclose()
    with pytest.raises(RuntimeError, match="the client is closed"):
        await client.models()
