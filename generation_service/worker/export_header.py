"""What a job tells export about its audio."""

from __future__ import annotations

from google.protobuf import struct_pb2

from dgx_music.export.v1 import export_pb2
from dgx_music.limits import MAX_GENERATION_FACTS_BYTES, MAX_SECTIONS, MAX_TEMPO_BPM
from dgx_music.pcm import live_header
from dgx_music.storage.v1 import storage_pb2
from generation_service.models.base import MetadataValue
from generation_service.models.sketch.composition.prompt_parser import parse_prompt
from generation_service.worker.converters import metadata_struct
from generation_service.worker.job_audio import JobAudio


def build_export_header(generation: storage_pb2.Generation, audio: JobAudio) -> export_pb2.ExportHeader:
    """Returns the header of the Export call. The metadata of the request is empty until the prompt is encoded."""
    info, metadata = audio.handle.info, {**audio.handle.metadata, **audio.facts}
    bpm = float(metadata.get("bpm", 0.0))
    bpm = bpm if 0.0 < bpm <= MAX_TEMPO_BPM else 0.0  # Export would reject a tempo out of range, and with it the audio.
    return export_pb2.ExportHeader(
        audio=live_header(generation.id, generation.attempt, audio.sample_rate_hz, audio.channels, audio.frames),
        output=generation.output if generation.HasField("output") else None,
        keep_samples=audio.keeps_samples,
        tags=export_pb2.Tags(
            model_name=info.name,
            model_version=info.version,
            genre=str(metadata.get("genre", "")),
            bpm=bpm,
            key=str(metadata.get("key", "")),
            license=info.licence,
            prompt=generation.prompt if generation.output.tag_prompt else "",
        ),
        tempo_hint_bpm=bpm or parse_prompt(generation.prompt).bpm or 0.0,
        sections=[
            export_pb2.Section(name=section.name, start_frame=section.start_frame, end_frame=section.end_frame)
            for section in audio.sections[:MAX_SECTIONS]
        ],
        generation_facts=_build_generation_facts(audio),
    )


def _build_generation_facts(audio: JobAudio) -> struct_pb2.Struct:
    """Returns what is known about the music before it is measured. Export keeps it with the samples."""
    info = audio.handle.info
    facts: dict[str, MetadataValue] = {
        "license": info.licence,
        "is_synthesiser": info.is_synthesiser,
        **audio.facts,
    }
    everything = metadata_struct({**audio.handle.metadata, **facts})
    return everything if everything.ByteSize() <= MAX_GENERATION_FACTS_BYTES else metadata_struct(facts)
