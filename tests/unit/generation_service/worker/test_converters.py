"""The header of the Export call."""

from __future__ import annotations

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.storage.v1.storage_pb2 import Generation
from generation_service.worker.converters import build_export_header
from tests.support.tone_model import tone_parameters


async def test_tempo_hint_is_from_the_metadata_or_else_the_prompt(start_engine, model):
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    assert handle.metadata == {}  # The prompt is not encoded yet.
    header = build_export_header(Generation(prompt="rock at 140 BPM"), handle)
    assert (header.tempo_hint_bpm, header.tags.bpm) == (140, 0)
    assert build_export_header(Generation(prompt="rock"), handle).tempo_hint_bpm == 0

    await handle.wait_until_started()
    header = build_export_header(Generation(prompt="rock at 140 BPM"), handle)
    assert (header.tempo_hint_bpm, header.tags.bpm) == (120, 120)
    handle.cancel()


async def test_prompt_is_tagged_only_if_requested(start_engine, model):
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    generation = Generation(prompt="rock", output=OutputOptions(tag_prompt=True))
    assert build_export_header(generation, handle).tags.prompt == "rock"
    assert build_export_header(Generation(prompt="rock"), handle).tags.prompt == ""
    handle.cancel()
