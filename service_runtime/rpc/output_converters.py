"""The contract's OutputOptions ↔ what the services' domains have of it."""

from __future__ import annotations

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import InvalidArgument
from service_runtime.audio.output_options import FileFormat, LoudnessProfile, OutputOptions

FORMAT_OF = {audio_pb2.FileFormat.Value(f"FILE_FORMAT_{format.name}"): format for format in FileFormat}
FORMAT_NAMES = {format: f"FILE_FORMAT_{format.name}" for format in FileFormat}
PROFILE_OF = {audio_pb2.LoudnessProfile.Value(f"LOUDNESS_PROFILE_{one.name}"): one for one in LoudnessProfile}


def output_options_from_proto(message: audio_pb2.OutputOptions, field: str) -> OutputOptions:
    """The options, checked. Raises InvalidArgument, the option named under `field`."""
    file_format = FORMAT_OF.get(message.format or audio_pb2.FILE_FORMAT_WAV_PCM_24)
    if file_format is None:
        names = ", ".join(FORMAT_NAMES.values())
        raise InvalidArgument(f"{field}.format", f"{message.format} is no format: take one of {names}")
    asked = message.WhichOneof("loudness")
    if asked == "profile" and message.profile and message.profile not in PROFILE_OF:
        names = ", ".join(audio_pb2.LoudnessProfile.keys()[1:])
        raise InvalidArgument(f"{field}.profile", f"{message.profile} is no profile: take one of {names}")
    options = OutputOptions(
        format=file_format,
        sample_rate_hz=message.sample_rate_hz,
        channels=message.channels,
        profile=PROFILE_OF.get(message.profile),
        target_lufs=message.target_lufs if asked == "target_lufs" else None,
        ceiling_dbtp=message.ceiling_dbtp if message.HasField("ceiling_dbtp") else None,
        tag_prompt=message.tag_prompt,
    )
    options.check(field)
    return options


def output_options_to_proto(options: OutputOptions) -> audio_pb2.OutputOptions:
    """The message for the options."""
    profile = options.profile
    return audio_pb2.OutputOptions(
        format=FORMAT_NAMES[options.format],
        sample_rate_hz=options.sample_rate_hz,
        channels=options.channels,
        profile=None if profile is None else f"LOUDNESS_PROFILE_{profile.name}",
        target_lufs=options.target_lufs,
        ceiling_dbtp=options.ceiling_dbtp,
        tag_prompt=options.tag_prompt,
    )
