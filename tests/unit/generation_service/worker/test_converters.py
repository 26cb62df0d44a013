"""What export is told of a generation."""

from __future__ import annotations

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.storage.v1.storage_pb2 import Generation
from generation_service.worker.converters import export_header
from tests.support.tone_model import ask


async def test_the_tempo_hint_is_the_known_tempo_and_else_the_prompts(start_engine, model):
    engine = await start_engine(model)
    handle = engine.submit(model.info, ask("a", 1))
    assert handle.metadata == {}  # Nothing is known of it yet.
    asked = export_header(Generation(prompt="rock at 140 BPM"), handle)
    assert (asked.tempo_hint_bpm, asked.tags.bpm) == (140, 0)
    assert export_header(Generation(prompt="rock"), handle).tempo_hint_bpm == 0

    await handle.started()
    known = export_header(Generation(prompt="rock at 140 BPM"), handle)
    assert (known.tempo_hint_bpm, known.tags.bpm) == (120, 120)
    handle.cancel()


async def test_the_prompt_is_tagged_only_if_asked_for(start_engine, model):
    engine = await start_engine(model)
    handle = engine.submit(model.info, ask("a", 1))
    asked = Generation(prompt="rock", output=OutputOptions(tag_prompt=True))
    assert export_header(asked, handle).tags.prompt == "rock"
    assert export_header(Generation(prompt="rock"), handle).tags.prompt == ""
    handle.cancel()
