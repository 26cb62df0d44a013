"""The header of the Export call."""

from __future__ import annotations

import pytest

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.limits import MAX_GENERATION_FACTS_BYTES, MAX_SECTIONS
from dgx_music.storage.v1.storage_pb2 import Generation
from generation_service.engine.request_handle import GenerationHandle
from generation_service.models.base import Section
from generation_service.worker.export_header import build_export_header
from generation_service.worker.job_audio import JobAudio
from tests.support.tone_model import tone_parameters


def audio_of(handle: GenerationHandle) -> JobAudio:
    info = handle.info
    return JobAudio(handle, info.sample_rate_hz, info.channels, handle.parameters.frames, handle)


async def test_tempo_hint_is_from_the_metadata_or_else_the_prompt(start_engine, model):
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    assert handle.metadata == {}  # The prompt is not encoded yet.
    header = build_export_header(Generation(prompt="rock at 140 BPM"), audio_of(handle))
    assert (header.tempo_hint_bpm, header.tags.bpm) == (140, 0)
    assert build_export_header(Generation(prompt="rock"), audio_of(handle)).tempo_hint_bpm == 0

    await handle.wait_until_started()
    header = build_export_header(Generation(prompt="rock at 140 BPM"), audio_of(handle))
    assert (header.tempo_hint_bpm, header.tags.bpm) == (120, 120)
    handle.cancel()


async def test_header_has_the_sections_and_what_is_known_of_the_music(start_engine, model):
    model.sections = (Section("intro", 0, 500), Section("A", 500, 800))
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    await handle.wait_until_started()
    header = build_export_header(Generation(prompt="rock"), audio_of(handle))
    assert [(section.name, section.start_frame, section.end_frame) for section in header.sections] == [
        ("intro", 0, 500),
        ("A", 500, 800),
    ]
    facts = dict(header.generation_facts)
    assert facts == {"bpm": 120, "key": "A minor", "license": "CC0-1.0", "is_synthesiser": True}
    handle.cancel()


async def test_prompt_is_tagged_only_if_requested(start_engine, model):
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    generation = Generation(prompt="rock", output=OutputOptions(tag_prompt=True))
    assert build_export_header(generation, audio_of(handle)).tags.prompt == "rock"
    assert build_export_header(Generation(prompt="rock"), audio_of(handle)).tags.prompt == ""
    handle.cancel()


@pytest.mark.parametrize(("bpm", "tagged"), [(1000.0, 1000.0), (1000.1, 0.0), (-1.0, 0.0), (0.0, 0.0)])
async def test_tempo_that_export_would_reject_is_left_out(start_engine, model, bpm, tagged):
    model.metadata = {"bpm": bpm}
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    await handle.wait_until_started()
    assert build_export_header(Generation(prompt="rock"), audio_of(handle)).tags.bpm == tagged
    handle.cancel()


async def test_only_what_export_accepts_is_sent(start_engine, model):
    model.sections = tuple(Section("A", index, index + 1) for index in range(MAX_SECTIONS + 1))
    model.metadata = {"long": "x" * MAX_GENERATION_FACTS_BYTES}
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    await handle.wait_until_started()
    header = build_export_header(Generation(prompt="rock"), audio_of(handle))
    assert len(header.sections) == MAX_SECTIONS
    assert dict(header.generation_facts) == {"license": "CC0-1.0", "is_synthesiser": True}
    handle.cancel()


async def test_what_the_job_knows_is_preferred_to_what_the_model_says(start_engine, model):
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    await handle.wait_until_started()
    audio = audio_of(handle)
    audio.facts = {"bpm": 90, "loop_bars": 2}
    header = build_export_header(Generation(prompt="rock at 140 BPM"), audio)
    assert (header.tags.bpm, header.tempo_hint_bpm) == (90, 90)
    assert (dict(header.generation_facts)["bpm"], dict(header.generation_facts)["loop_bars"]) == (90, 2)
    handle.cancel()
