"""Edits of earlier music, loops, and the audio that conditions refer to, through the real services."""

from __future__ import annotations

import asyncio
import io
import math
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.conditioning_pb2 import (
    EDIT_KIND_EXTEND_LEFT,
    EDIT_KIND_EXTEND_RIGHT,
    EDIT_KIND_REPAINT,
    Conditioning,
    Edit,
    Loop,
    Melody,
    PromptSection,
    Style,
    WeightedPrompt,
)
from export_service.formats.reader import FinishedAudio
from export_service.streaming import audio_stream
from generation_service.models.base import Capability, Section, StyleExcerpt
from generation_service.models.base import PromptSection as SectionInFrames
from generation_service.models.base import WeightedPrompt as ModelPrompt
from generation_service.worker.conditioning import DEFAULT_STYLE_SECONDS
from generation_service.worker.edited_audio import prepare_edit
from service_runtime.generated_length import EDIT_JOINT_SECONDS, EDIT_LEAD_SECONDS, LOOP_SEARCH_SECONDS
from tests.support.joints import click, music
from tests.support.service_stack import ServiceStack
from tests.support.tone_model import BLOCK_FRAMES, Gate

UNKNOWN = "11111111-2222-4333-8444-555555555555"
TONE_RATE = 8000


async def import_music(services: ServiceStack, seconds: float, rate: int = TONE_RATE, channels: int = 2) -> str:
    """Imports a 24-bit WAV file and returns the clip's id."""
    file = io.BytesIO()
    soundfile.write(file, music(seconds, rate, channels=channels), rate, format="WAV", subtype="PCM_24")
    return await upload(services, file.getvalue())


async def upload(services: ServiceStack, data: bytes) -> str:
    pieces = [export_pb2.ImportClipRequest(data=data[at : at + 65536]) for at in range(0, len(data), 65536)]
    return (await services.export.ImportClip(iter(pieces), timeout=60)).clip_id


async def finish(services: ServiceStack, seconds: float, **fields: object) -> pb.Generation:
    done = await services.wait_until_ended(await services.create(seconds=seconds, **fields))
    assert done.state == pb.GENERATION_STATE_COMPLETED, done.error_message
    return done


def read_pcm(services: ServiceStack, generation: pb.Generation) -> tuple[np.ndarray, int]:
    """The samples as integers, [n, channels], and their rate."""
    return soundfile.read(services.folder / generation.file_path, dtype="int32", always_2d=True)


def source_pcm(seconds: float, rate: int, channels: int) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, music(seconds, rate, channels=channels), rate, format="WAV", subtype="PCM_24")
    file.seek(0)
    return soundfile.read(file, dtype="int32", always_2d=True)[0]


@pytest.mark.parametrize(("rate", "channels"), [(TONE_RATE, 2), (44_100, 1), (48_000, 2)])
async def test_repaint_keeps_the_rest_to_the_bit_in_the_format_of_the_source(services, rate, channels):
    clip_id = await import_music(services, 6.0, rate, channels)
    edit = Edit(source_id=clip_id, kind=EDIT_KIND_REPAINT, start_seconds=2.2, end_seconds=4.2)
    done = await finish(services, 6.0, edit=edit)
    result, result_rate = read_pcm(services, done)
    source = source_pcm(6.0, rate, channels)
    assert (result_rate, result.shape) == (rate, source.shape)
    start, end = round(2.2 * rate), round(4.2 * rate)
    head, tail = start - round(EDIT_LEAD_SECONDS * rate), end + round(EDIT_JOINT_SECONDS * rate)
    assert np.array_equal(result[:head], source[:head])
    assert np.array_equal(result[tail:], source[tail:])
    inside = (result[start + rate // 10 : end] / 2**31).astype(np.float32)
    if channels == 2:  # The model's tone has opposite signs in its channels.
        spectrum = np.abs(np.fft.rfft(inside[:, 0]))
        assert abs(np.argmax(spectrum) * rate / len(inside) - 440) < 1
    for joint in (start, end):
        assert click(result / 2**31, joint, rate) < 1.5
    received = services.model.received[-1]
    assert received.kept_prompt_frames == EDIT_LEAD_SECONDS * TONE_RATE
    assert received.prompt_audio.shape == (round(2.2 * TONE_RATE), 2)
    facts = dict(done.metadata)
    assert (facts["edited_from"], facts["edit"]) == (clip_id, "repainted")
    assert (facts["new_from_seconds"], facts["new_to_seconds"]) == (2.2, 4.2)
    assert facts["normalization_mode"] == "NONE"


async def test_extension_of_a_generation_to_the_right_and_to_the_left(services):
    services.model.sections = (Section("intro", 0, 500), Section("A", 500, 9000))
    first = await finish(services, 2.0, seed=200)
    assert b"intro" in (services.folder / first.file_path).read_bytes()
    source, _ = read_pcm(services, first)
    edit = Edit(source_id=first.id, kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=1.5)
    done = await finish(services, 3.5, seed=201, edit=edit)
    assert b"intro" not in (services.folder / done.file_path).read_bytes(), "sections are those of the new part only"
    longer, _ = read_pcm(services, done)
    assert len(longer) == 3.5 * TONE_RATE
    kept = len(source) - round(EDIT_LEAD_SECONDS * TONE_RATE)
    assert np.array_equal(longer[:kept], source[:kept])
    assert np.abs(longer[-TONE_RATE:]).max() > 2**28

    edit = Edit(source_id=first.id, kind=EDIT_KIND_EXTEND_LEFT, added_seconds=1.5)
    longer, _ = read_pcm(services, await finish(services, 3.5, seed=202, edit=edit))
    assert len(longer) == 3.5 * TONE_RATE
    kept = round((1.5 + EDIT_JOINT_SECONDS) * TONE_RATE)
    assert np.array_equal(longer[kept:], source[round(EDIT_JOINT_SECONDS * TONE_RATE) :])
    received = services.model.received[-1]
    assert received.kept_prompt_frames == 0
    assert len(received.prompt_audio) == 2 * TONE_RATE  # It continues the source's start.


async def test_source_longer_than_what_the_model_may_generate_can_be_extended(services):
    services.model.info = replace(services.model.info, max_duration_seconds=2.0)
    await services.stop("generation")
    await services.start("generation")
    clip_id = await import_music(services, 20.0)
    edit = Edit(source_id=clip_id, kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=1.0)
    samples, _ = read_pcm(services, await finish(services, 21.0, edit=edit))
    assert len(samples) == 21 * TONE_RATE
    assert len(services.model.received[-1].prompt_audio) == 10 * TONE_RATE


async def test_head_that_takes_long_to_copy_does_not_stall_the_new_music(stack, monkeypatch):
    """Copying an hour of audio may take longer than the engine waits for a reader."""
    await stack.start("storage", "export")
    await stack.start("generation", buffer_seconds=0.5)
    clip_id = await import_music(stack, 5.0)
    gate, read_frames = Gate(), audio_stream._read_frames

    def read_slowly(path: Path, file: FinishedAudio, frames: int) -> bytes:
        # Not the streams before it, of which export may still read after they were cancelled.
        handles = [job._handle for job in stack.generation._worker._jobs.values()]
        if any(handle is not None and handle._is_read_later for handle in handles):
            gate()
        return read_frames(path, file, frames)

    monkeypatch.setattr(audio_stream, "_read_frames", read_slowly)
    edit = Edit(source_id=clip_id, kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=2.0)
    generation_id = await stack.create(seconds=7.0, edit=edit)
    await gate.reached()
    (job,) = stack.generation._worker._jobs.values()
    handle = job._handle
    await asyncio.wait_for(handle._wait_until(lambda: handle._queued_frames >= TONE_RATE / 2), 60)
    stall_timer = handle._stall_timer
    gate.open()
    assert stall_timer is None
    assert (await stack.wait_until_ended(generation_id)).state == pb.GENERATION_STATE_COMPLETED


async def test_requested_loudness_applies_to_the_whole_result(services):
    clip_id = await import_music(services, 4.0)
    edit = Edit(source_id=clip_id, kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=1.0)
    done = await finish(services, 5.0, edit=edit, output={"target_lufs": -20.0})
    assert abs(dict(done.metadata)["integrated_lufs"] + 20.0) < 0.2


async def test_end_of_the_source_limits_what_is_repainted(services):
    clip_id = await import_music(services, 3.0)
    edit = Edit(source_id=clip_id, kind=EDIT_KIND_REPAINT, start_seconds=2.0, end_seconds=3.009)
    samples, _ = read_pcm(services, await finish(services, 3.0, edit=edit))
    assert len(samples) == 3 * TONE_RATE
    edit = Edit(source_id=clip_id, kind=EDIT_KIND_REPAINT, start_seconds=3.0, end_seconds=4.0)
    failed = await services.wait_until_ended(await services.create(seconds=3.0, edit=edit))
    assert failed.error_message == ("edit.start_seconds: must be before edit.end_seconds and the end of the source")


async def test_parts_at_the_joints_are_read_as_far_as_they_are_compared(services):
    clip_id = await import_music(services, 3.0)
    info = services.model.info
    left = Edit(source_id=clip_id, kind=EDIT_KIND_EXTEND_LEFT, added_seconds=1.0)
    edit = await prepare_edit(left, info, services.export, 60.0)
    source = source_pcm(3.0, TONE_RATE, 2) / np.float32(2**31)
    assert np.array_equal(edit.tail, source[:TONE_RATE])
    assert len(edit.lead) == 0
    repaint = Edit(source_id=clip_id, kind=EDIT_KIND_REPAINT, start_seconds=1.0, end_seconds=2.0)
    edit = await prepare_edit(repaint, info, services.export, 60.0)
    lead, joint = round(EDIT_LEAD_SECONDS * TONE_RATE), round(EDIT_JOINT_SECONDS * TONE_RATE)
    assert np.array_equal(edit.lead, source[TONE_RATE - lead : TONE_RATE])
    assert np.array_equal(edit.tail, source[2 * TONE_RATE : 2 * TONE_RATE + joint])
    with pytest.raises(InvalidArgument, match="must be EXTEND_LEFT, EXTEND_RIGHT or REPAINT"):
        await prepare_edit(Edit(source_id=clip_id), info, services.export, 60.0)


async def test_edit_of_an_unknown_source_fails_and_says_so(services):
    edit = Edit(source_id=UNKNOWN, kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=1.0)
    failed = await services.wait_until_ended(await services.create(edit=edit))
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == f"edit.source_id: there is no finished generation or clip with id {UNKNOWN}"


def loops_of(path: Path) -> list[tuple[int, int]]:
    """The loops in the `smpl` chunk of a WAV file: first and last frame."""
    data = path.read_bytes()
    at = data.index(b"smpl") + 8
    count = struct.unpack_from("<I", data, at + 28)[0]
    return [struct.unpack_from("<II", data, at + 36 + 24 * index + 8) for index in range(count)]


@pytest.mark.parametrize(("seed", "beats"), [(441, 0), (97, 3)])
async def test_loop_has_whole_bars_no_seam_and_loop_points(services, seed, beats):
    loop = Loop(bars=2, beats_per_bar=beats, bpm=123.0)
    bar_seconds = (beats or 4) * 60 / 123
    seconds = 2 * bar_seconds
    done = await finish(services, seconds, seed=seed, loop=loop)
    samples, _ = read_pcm(services, done)
    assert len(samples) == round(seconds * TONE_RATE)
    twice = np.concatenate([samples, samples]) / 2**31
    assert click(twice, len(samples), TONE_RATE) < 1.5
    assert loops_of(services.folder / done.file_path) == [(0, len(samples) - 1)]
    facts = dict(done.metadata)
    assert (facts["loop_bars"], facts["bpm"]) == (2, 123)
    # A bar before it, and one after it, where a synthesiser ends.
    needed = (seconds + 2 * bar_seconds + LOOP_SEARCH_SECONDS) * TONE_RATE
    assert services.model.received[-1].frames == pytest.approx(needed, abs=2)


async def test_rest_of_the_music_is_not_generated_once_the_loop_is_complete(services):
    gate, needed = Gate(), math.ceil((1 + 2 + LOOP_SEARCH_SECONDS) * TONE_RATE / BLOCK_FRAMES)
    services.model.at["a loop", needed + 1] = gate
    loop = Loop(bars=2, beats_per_bar=1, bpm=60.0)
    created = await services.create(seconds=2.0, prompt="a loop", loop=loop)
    await gate.reached()
    done = await services.wait_until_ended(created)  # While the model is still at it.
    assert done.state == pb.GENERATION_STATE_COMPLETED, done.error_message
    gate.open()
    await services.model.release_of("a loop")
    assert sum(batch == ["a loop"] for batch in services.model.batches) == needed + 1


async def test_built_in_synthesiser_loops(services):
    seconds = 4 * 4 * 60 / 124
    done = await finish(
        services,
        seconds,
        prompt="house at 124 BPM",
        model_name="sketch",
        sample_rate_hz=32_000,
        seed=7,
        loop=Loop(bars=4, bpm=124.0),
    )
    samples, rate = read_pcm(services, done)
    assert len(samples) == round(seconds * rate)
    assert click(np.concatenate([samples, samples]) / 2**31, len(samples), rate) < 2


async def test_conditions_reach_the_model_with_the_audio_they_refer_to(services):
    can = frozenset(set(Capability) - {Capability.LYRICS, Capability.STEPS})
    services.model.info = replace(services.model.info, capabilities=can)
    await services.stop("generation")
    await services.start("generation")
    clip_id = await import_music(services, 3.5)
    await finish(
        services,
        2.0,
        conditioning=Conditioning(
            negative_prompt="noise",
            prompt_weight=2.0,
            further_prompts=[WeightedPrompt(prompt="strings", weight=0.5)],
            melody=Melody(source_id=clip_id, start_seconds=0.5),
            style=Style(source_id=clip_id, seconds=1.5, quantizers=2, text_guidance=3.0),
        ),
    )
    received = services.model.received[-1]
    clip = source_pcm(3.5, TONE_RATE, 2) / np.float32(2**31)
    assert np.array_equal(received.melody, clip[TONE_RATE // 2 :]), "more than the music is long"
    assert np.array_equal(received.style.audio, clip[: TONE_RATE * 3 // 2])
    assert (received.style.quantizers, received.style.text_guidance) == (2, 3.0)
    assert (received.negative_prompt, received.prompt_weight) == ("noise", 2.0)
    assert received.further_prompts == (ModelPrompt("strings", 0.5),)

    loop = Loop(bars=2, beats_per_bar=1, bpm=120)  # It is cut out of music that starts half a second before it.
    await finish(services, 1.0, loop=loop, conditioning=Conditioning(melody=Melody(source_id=clip_id)))
    melody = services.model.received[-1].melody
    assert np.array_equal(melody, np.concatenate([clip[TONE_RATE // 2 : TONE_RATE], clip]))

    await finish(
        services,
        2.0,
        conditioning=Conditioning(
            sections=[PromptSection(start_seconds=1, end_seconds=2, prompt="drop")],
            style=Style(source_id=clip_id),
        ),
    )
    received = services.model.received[-1]
    assert received.sections == (SectionInFrames(TONE_RATE, 2 * TONE_RATE, "drop"),)
    assert len(received.style.audio) == DEFAULT_STYLE_SECONDS * TONE_RATE
    assert received.style.text_guidance == StyleExcerpt(received.style.audio).text_guidance
    edit = Edit(source_id=clip_id, kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=2.0)
    section = PromptSection(start_seconds=4.5, end_seconds=5.5, prompt="drop")
    await finish(services, 5.5, edit=edit, conditioning=Conditioning(sections=[section]))
    lead = round(EDIT_LEAD_SECONDS * TONE_RATE)
    assert services.model.received[-1].sections == (SectionInFrames(TONE_RATE + lead, 2 * TONE_RATE + lead, "drop"),)
    edit = Edit(source_id=clip_id, kind=EDIT_KIND_REPAINT, start_seconds=1.0, end_seconds=2.0)
    both = [PromptSection(start_seconds=at, end_seconds=at + 1, prompt=f"at {at}") for at in (0, 1, 2)]
    await finish(services, 3.5, edit=edit, conditioning=Conditioning(sections=both))
    received = services.model.received[-1]
    assert [section.prompt for section in received.sections] == ["at 0", "at 1", "at 2"]  # The joints reach into both.
    assert received.sections[-1].end_frame == received.frames
    loop = Loop(bars=1, bpm=120.0)
    await finish(services, 2.0, loop=loop, conditioning=Conditioning(sections=both[:2]))
    assert services.model.received[-1].sections == (  # The bar before the loop belongs to the first section.
        SectionInFrames(0, 3 * TONE_RATE, "at 0"),
        SectionInFrames(3 * TONE_RATE, 4 * TONE_RATE, "at 1"),
    )


async def test_excerpt_past_the_end_of_its_source_is_named(services):
    can = frozenset({Capability.MELODY})
    services.model.info = replace(services.model.info, capabilities=can)
    await services.stop("generation")
    await services.start("generation")
    melody = Melody(source_id=await import_music(services, 1.0), start_seconds=2.0)
    failed = await services.wait_until_ended(await services.create(conditioning=Conditioning(melody=melody)))
    assert failed.error_message == "conditioning.melody.start_seconds: is past the end of the source"


async def test_model_that_cannot_is_refused_with_the_field_and_those_that_can(services):
    failed = await services.wait_until_ended(
        await services.create(conditioning=Conditioning(melody=Melody(source_id=UNKNOWN)))
    )
    assert failed.state == pb.GENERATION_STATE_FAILED
    assert failed.error_message.startswith("conditioning.melody: model 'tone' can't follow a melody; ")


@pytest.mark.parametrize("level", [1.0, 0.3])
async def test_loud_new_music_leaves_the_rest_as_it_is(services, level):
    """Neither a source at full scale nor new music beyond it has the file turned down."""
    services.model.shapes["a"] = lambda block: 3.0 * block
    source = music(4.0, TONE_RATE)
    source *= np.float32(level / np.abs(source).max())
    file = io.BytesIO()
    soundfile.write(file, source, TONE_RATE, format="WAV", subtype="PCM_16")
    clip_id = await upload(services, file.getvalue())
    file.seek(0)
    expected = soundfile.read(file, dtype="int32", always_2d=True)[0]
    edit = Edit(source_id=clip_id, kind=EDIT_KIND_REPAINT, start_seconds=1.2, end_seconds=2.2)
    result, _ = read_pcm(services, await finish(services, 4.0, edit=edit))
    head, tail = round((1.2 - EDIT_LEAD_SECONDS) * TONE_RATE), round((2.2 + EDIT_JOINT_SECONDS) * TONE_RATE)
    assert np.array_equal(result[:head], expected[:head])
    assert np.array_equal(result[tail:], expected[tail:])
    inside = result[head + 200 : tail - 200] / 2**31
    assert 0.7 < np.abs(inside).max() < 10 ** (-1 / 20) * 1.02
