"""`dgx-music render`: converts a finished generation; and the output options that `generate` shares with it."""

from __future__ import annotations

from pathlib import Path

from dgx_music.audio.v1.audio_pb2 import FileFormat, LoudnessProfile, OutputOptions, PublicationTags
from dgx_music.export.v1.export_pb2 import NORMALIZATION_MODE_NONE, EditTagsRequest, ExportResponse, RenderRequest
from gateway.cli.commands.generation.output_flags import Format
from gateway.cli.display.console import Console, escape_text
from gateway.cli.display.summary import format_audio, format_loudness, format_true_peak
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.files.cover_file import edit_tags
from gateway.cli.session.files.file_extensions import EXTENSION_FORMATS, default_extension, formats_by_extension
from gateway.cli.session.files.output_files import download
from gateway.cli.session.runner import Session
from gateway.cli.session.standard_streams import STANDARD_OUTPUT
from gateway.timeouts import STREAM_TIMEOUT_SECONDS

PROFILES = [name.removeprefix("LOUDNESS_PROFILE_").lower() for name in LoudnessProfile.keys()[1:]]


def build_output_options(
    format_: Format | None,
    sample_rate_hz: int,
    channels: int,
    loudness: str,
    ceiling_dbtp: float | None,
    output: Path | None = None,
    *,
    bit_rate_kbps: int = 0,
    quality: float | None = None,
    tag_prompt: bool = False,
    publication: PublicationTags | None = None,
) -> OutputOptions | None:
    """Returns None if no option was given. Without a format, the extension of `output` determines it.

    Raises CommandError if the format and the extension do not go together, or if the loudness is neither a profile nor
    a number.
    """
    if output is not None:
        format_ = resolve_format(format_, output)
    options = OutputOptions(
        format=None if format_ is None else f"FILE_FORMAT_{format_.name}",
        sample_rate_hz=sample_rate_hz,
        channels=channels,
        profile=f"LOUDNESS_PROFILE_{loudness.upper()}" if loudness in PROFILES else None,
        ceiling_dbtp=ceiling_dbtp,
        bit_rate_kbps=bit_rate_kbps,
        quality=quality,
        tag_prompt=tag_prompt,
        publication=publication,
    )
    if loudness and loudness not in PROFILES:
        try:
            options.target_lufs = float(loudness)
        except ValueError:
            raise CommandError(
                f"--loudness: {loudness!r} is not a valid loudness; use {', '.join(PROFILES)} or a number of LUFS such "
                "as -14",
                BAD_INPUT,
            ) from None
    return options if options.ListFields() else None


def build_publication(title: str, artist: str, album: str) -> PublicationTags | None:
    """Returns the tags for publishing the file; None if none of them was given."""
    return PublicationTags(title=title, artist=artist, album=album) if title or artist or album else None


def resolve_format(format_: Format | None, output: Path) -> Format | None:
    """Returns the format of a file to be saved at `output`.

    Raises CommandError if its extension names no format, or another one than `format_`.
    """
    named = [Format[name] for name in formats_by_extension(output)]
    if format_ is None and not named and output != STANDARD_OUTPUT:
        extensions = ", ".join(EXTENSION_FORMATS)
        raise CommandError(
            f"--output: {output} has no extension that names its format; add one of {extensions}, or use --format",
            BAD_INPUT,
        )
    if format_ is not None and named and format_ not in named:
        use = f"use the extension {default_extension(format_.name)}, or --format {named[0].value}"
        raise CommandError(f"--output: {output} does not name a file of --format {format_.value}; {use}", BAD_INPUT)
    return format_ or next(iter(named), None)


async def render(
    session: Session,
    console: Console,
    generation_id: str,
    options: OutputOptions | None,
    output: Path | None,
    cover: bytes = b"",
) -> int:
    """Renders a finished generation with these options, puts the cover into the file, and saves it to `output`, each if
    given."""
    response = await session.music.Render(
        RenderRequest(generation_id=generation_id, output=options), timeout=STREAM_TIMEOUT_SECONDS
    )
    if cover:
        edit = EditTagsRequest(generation_id=generation_id, render_id=response.render_id, cover=cover)
        edited = await edit_tags(session, edit)
        response.file.file_size_bytes, response.file.file_sha256 = edited.file_size_bytes, edited.file_sha256
    copy = None
    if output is not None:
        copy = await download(session, generation_id, output, render_id=response.render_id)
    if console.as_json:
        console.print_message(response)
        return 0
    console.print_fields(
        (
            ("file", escape_text(session.locate(response.file.file_path))),
            ("copy", "" if copy is None else escape_text(str(copy))),
            ("audio", _audio(response.file)),
            ("loudness", _loudness(response.file)),
            ("true peak", format_true_peak(response.file.file)),
            ("render", response.render_id),
            ("id", generation_id),
        )
    )
    return 0


def _audio(file: ExportResponse) -> str:
    name = FileFormat.Name(file.format).removeprefix("FILE_FORMAT_")
    return format_audio(file.duration_seconds, file.sample_rate_hz, file.channels, name, file.file_size_bytes)


def _loudness(file: ExportResponse) -> str:
    loudness = format_loudness(file.file)
    is_unchanged = file.normalization.mode == NORMALIZATION_MODE_NONE
    reason = "" if is_unchanged and loudness else file.normalization.reason
    return f"{loudness} ({reason})" if loudness and reason else loudness or reason
