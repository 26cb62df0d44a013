"""Converts OutputOptions between the protobuf message and the domain type."""

from __future__ import annotations

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import InvalidArgument
from service_runtime.audio.output_options import (
    NO_PUBLICATION,
    FileFormat,
    LoudnessProfile,
    OutputOptions,
    PublicationTags,
)

FORMATS_BY_NUMBER = {audio_pb2.FileFormat.Value(f"FILE_FORMAT_{format.name}"): format for format in FileFormat}
FORMAT_NAMES = {format: f"FILE_FORMAT_{format.name}" for format in FileFormat}
"""Format → the name of its enum value in the protobuf message."""
PROFILES_BY_NUMBER = {
    audio_pb2.LoudnessProfile.Value(f"LOUDNESS_PROFILE_{profile.name}"): profile for profile in LoudnessProfile
}


def output_options_from_proto(message: audio_pb2.OutputOptions, field: str) -> OutputOptions:
    """Returns the validated options. Raises InvalidArgument for the first invalid option, named under `field`."""
    file_format = FORMATS_BY_NUMBER.get(message.format or audio_pb2.FILE_FORMAT_WAV_PCM_24)
    if file_format is None:
        names = ", ".join(FORMAT_NAMES.values())
        raise InvalidArgument(f"{field}.format", f"{message.format} is not a valid format; use one of {names}")
    loudness = message.WhichOneof("loudness")
    if loudness == "profile" and message.profile and message.profile not in PROFILES_BY_NUMBER:
        names = ", ".join(audio_pb2.LoudnessProfile.keys()[1:])
        raise InvalidArgument(f"{field}.profile", f"{message.profile} is not a valid profile; use one of {names}")
    options = OutputOptions(
        format=file_format,
        sample_rate_hz=message.sample_rate_hz,
        channels=message.channels,
        profile=PROFILES_BY_NUMBER.get(message.profile),
        target_lufs=message.target_lufs if loudness == "target_lufs" else None,
        ceiling_dbtp=message.ceiling_dbtp if message.HasField("ceiling_dbtp") else None,
        tag_prompt=message.tag_prompt,
        bit_rate_kbps=message.bit_rate_kbps,
        quality=message.quality if message.HasField("quality") else None,
        publication=_publication_from_proto(message.publication),
    )
    options.check(field)
    return options


def output_options_to_proto(options: OutputOptions) -> audio_pb2.OutputOptions:
    """Returns the message for the options."""
    profile, publication = options.profile, options.publication
    return audio_pb2.OutputOptions(
        format=FORMAT_NAMES[options.format],
        sample_rate_hz=options.sample_rate_hz,
        channels=options.channels,
        profile=None if profile is None else f"LOUDNESS_PROFILE_{profile.name}",
        target_lufs=options.target_lufs,
        ceiling_dbtp=options.ceiling_dbtp,
        tag_prompt=options.tag_prompt,
        bit_rate_kbps=options.bit_rate_kbps,
        quality=options.quality,
        publication=None if publication == NO_PUBLICATION else audio_pb2.PublicationTags(**vars(publication)),
    )


def _publication_from_proto(message: audio_pb2.PublicationTags) -> PublicationTags:
    return PublicationTags(message.title, message.artist, message.album)
