"""Converts the header of an export: what file to make of the samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError, SerializeToJsonError

from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2
from dgx_music.limits import MAX_GENERATION_FACTS_BYTES, MAX_SECTIONS, MAX_TEMPO_BPM
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.m4a_file import require_encoder
from export_service.formats.provenance import Signer
from export_service.pipeline.attempt_processor import ExportSpec
from export_service.tagging.sections import Section
from export_service.tagging.tag_text import clean_text
from export_service.tagging.tags import MAX_TAG_CHARACTERS, Tags, clean_tags
from service_runtime.rpc.output_converters import output_options_from_proto
from service_runtime.validation import check_range


def to_export_spec(
    header: export_pb2.ExportHeader, target: LoudnessTarget, generator: str, signer: Signer | None
) -> ExportSpec:
    """`target` applies where the header asks for no loudness or ceiling, and `generator` names this software.

    Raises InvalidArgument for the first invalid field, and FailedPrecondition if the encoder is not installed.
    """
    options, audio = output_options_from_proto(header.output, "header.output"), header.audio
    require_encoder(options.format)
    seconds = audio.expected_frames / audio.sample_rate_hz
    options.check_for_source("header.output", audio.sample_rate_hz, audio.channels, seconds)
    return ExportSpec(
        options=options,
        tags=to_tags(header.tags, "header.tags"),
        default_target=LoudnessTarget(None, None) if header.keep_samples else target,
        generator=generator,
        tempo_hint_bpm=to_tempo_hint(header.tempo_hint_bpm, "header.tempo_hint_bpm"),
        signer=signer,
        sections=to_sections(header.sections, header.audio.expected_frames, "header.sections"),
        header=header_to_json(header),
    )


def to_tags(tags: export_pb2.Tags, field: str) -> Tags:
    return clean_tags(
        Tags(tags.model_name, tags.model_version, tags.genre, tags.bpm, tags.key, tags.license, tags.prompt),
        field,
    )


def to_tempo_hint(bpm: float, field: str) -> float:
    check_range(field, bpm, 0, MAX_TEMPO_BPM, "BPM")
    return bpm


def to_sections(sections: Iterable[export_pb2.Section], frames: int, field: str) -> tuple[Section, ...]:
    """`frames` is the length of the audio; 0 if it is not known in advance."""
    converted: list[Section] = []
    for index, section in enumerate(sections):
        start, end = section.start_frame, section.end_frame
        if index >= MAX_SECTIONS:
            raise InvalidArgument(field, f"must have at most {MAX_SECTIONS} entries")
        if start < (converted[-1].start_frame if converted else 0):
            raise InvalidArgument(
                f"{field}[{index}].start_frame", f"must be at least 0 and the previous section's start, not {start}"
            )
        if end <= start or 0 < frames < end:
            raise InvalidArgument(
                f"{field}[{index}].end_frame",
                f"must be after the start ({start}) and within the audio ({frames or 'any number of'} frames), "
                f"not {end}",
            )
        converted.append(Section(clean_text(section.name, MAX_TAG_CHARACTERS), start, end))
    return tuple(converted)


def header_to_json(header: export_pb2.ExportHeader) -> dict[str, Any]:
    """Returns the header in a form that `header_from_json` restores."""
    if header.generation_facts.ByteSize() > MAX_GENERATION_FACTS_BYTES:
        raise InvalidArgument(
            "header.generation_facts",
            f"must have at most {MAX_GENERATION_FACTS_BYTES} bytes, not {header.generation_facts.ByteSize()}",
        )
    try:
        return MessageToDict(header)
    except SerializeToJsonError as error:
        raise InvalidArgument("header.generation_facts", f"can't be stored as JSON: {error}") from error


def header_from_json(values: Mapping[str, Any]) -> export_pb2.ExportHeader:
    """Raises ValueError if the values are not those of a header."""
    try:
        return ParseDict(dict(values), export_pb2.ExportHeader(), ignore_unknown_fields=True)
    except ParseError as error:
        raise ValueError(str(error)) from error
