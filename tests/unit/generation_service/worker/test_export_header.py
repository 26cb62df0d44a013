"""The header of the Export call."""

from __future__ import annotations

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.export.v1.export_pb2 import ExportHeader, ExportResponse, Tags
from dgx_music.storage.v1.storage_pb2 import Generation
from generation_service.models.base import Section
from generation_service.worker.converters import Exported, build_completion, build_export_header
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


async def test_header_has_the_sections_and_what_is_known_of_the_music(start_engine, model):
    model.sections = (Section("intro", 0, 500), Section("A", 500, 800))
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    await handle.wait_until_started()
    header = build_export_header(Generation(prompt="rock"), handle)
    assert [(section.name, section.start_frame, section.end_frame) for section in header.sections] == [
        ("intro", 0, 500),
        ("A", 500, 800),
    ]
    facts = dict(header.generation_facts)
    assert facts == {"bpm": 120, "key": "A minor", "license": "CC0-1.0", "is_synthesiser": True}
    handle.cancel()


def test_completion_of_a_file_that_cannot_be_described_has_what_the_header_says():
    header = ExportHeader(tags=Tags(model_version="7"))
    header.generation_facts.update({"bpm": 120.0})
    file = ExportResponse(file_path="outputs/x.wav", file_size_bytes=9, file_sha256="abc", marks=[99])
    completion = build_completion(Generation(id="x"), "token", Exported(header, file), 1.0)
    assert dict(completion.metadata) == {"bpm": 120, "file_sha256": "abc"}
    assert (completion.file_path, completion.file_size_bytes, completion.model_version) == ("outputs/x.wav", 9, "7")


async def test_prompt_is_tagged_only_if_requested(start_engine, model):
    engine = await start_engine(model)
    handle = engine.submit(model.info, tone_parameters("a", 1))
    generation = Generation(prompt="rock", output=OutputOptions(tag_prompt=True))
    assert build_export_header(generation, handle).tags.prompt == "rock"
    assert build_export_header(Generation(prompt="rock"), handle).tags.prompt == ""
    handle.cancel()
