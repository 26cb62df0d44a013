"""What export is told of a generation."""

from __future__ import annotations

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.storage.v1.storage_pb2 import Generation
from generation_service.worker.converters import build_export_header
from tests.support.tone_model import tone_parameters


async def test_tempo_hint_is_from_the_metadata_or_else_the_prompt(start_engine, model):
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    assert handle.metadata == {}  # Nothing is known of it yet.
    asked = build_export_header(Generation(prompt="rock at 140 BPM"), handle)
    assert (asked.tempo_hint_bpm, asked.tags.bpm) == (140, 0)
    assert build_export_header(Generation(prompt="rock"), handle).tempo_hint_bpm == 0

    await handle.wait_until_started()
    known = build_export_header(Generation(prompt="rock at 140 BPM"), handle)
    assert (known.tempo_hint_bpm, known.tags.bpm) == (120, 120)
    handle.cancel()


async def test_prompt_is_tagged_only_if_requested(start_engine, model):
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    asked = Generation(prompt="rock", output=OutputOptions(tag_prompt=True))
    assert build_export_header(asked, handle).tags.prompt == "rock"
    assert build_export_header(Generation(prompt="rock"), handle).tags.prompt == ""
    handle.cancel()
