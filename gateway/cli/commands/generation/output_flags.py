"""The options for the audio file: --format, --bitrate, --quality, --sample-rate, --channels, --loudness and others."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dgx_music.limits import MAX_CHANNELS, MAX_QUALITY

PANEL = "Audio file"


class Format(StrEnum):
    """A file format of the contract; the value is what the user types."""

    WAV_PCM_24 = "wav"
    WAV_PCM_16 = "wav-16"
    WAV_PCM_32 = "wav-32"
    WAV_FLOAT = "wav-float"
    FLAC_24 = "flac"
    FLAC_16 = "flac-16"
    MP3 = "mp3"
    OGG_VORBIS = "ogg"
    OGG_OPUS = "opus"
    M4A_AAC = "m4a"
    AIFF_PCM_24 = "aiff"
    AIFF_PCM_16 = "aiff-16"
    AIFF_PCM_32 = "aiff-32"
    AIFF_FLOAT = "aiff-float"
    CAF_PCM_24 = "caf"
    CAF_PCM_16 = "caf-16"
    CAF_PCM_32 = "caf-32"
    CAF_FLOAT = "caf-float"
    W64_PCM_24 = "w64"
    W64_PCM_16 = "w64-16"
    W64_PCM_32 = "w64-32"
    W64_FLOAT = "w64-float"


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="wav, aiff, caf or w64 with 24 bits, or with -16, -32 or -float appended; flac, flac-16; mp3, ogg, opus; "
        "m4a, which requires the extra m4a. Default: by the extension of --output, or wav.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
BitRate = Annotated[
    int,
    typer.Option(
        "--bitrate",
        metavar="KBPS",
        min=0,
        help="Bit rate of mp3 (constant), ogg, opus or m4a (mean) in kbit/s for all channels together. Default: the "
        "quality below; 256 for stereo in m4a.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Quality = Annotated[
    float | None,
    typer.Option(
        metavar="Q",
        min=0,
        max=MAX_QUALITY,
        help="Quality of mp3, ogg or opus at a variable bit rate, 0 (smallest file) to 10. Default: 10 for mp3 (V0), 8 "
        "for ogg, 5 for opus (256 kbit/s for stereo).",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
SampleRate = Annotated[
    int,
    typer.Option(
        metavar="HZ",
        help="Resample to this rate, e.g. 44100 or 48000. Default: unchanged, or the next that the format supports.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Channels = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        max=MAX_CHANNELS,
        help="1 for mono, 2 for stereo. Default: unchanged.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Loudness = Annotated[
    str,
    typer.Option(
        metavar="PROFILE|LUFS",
        help="Target loudness: streaming (-14 LUFS), default (-16), broadcast (-23), a number of LUFS, or none to keep "
        "the level. Default: -16; `render` keeps the loudness.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
EditLoudness = Annotated[
    str,
    typer.Option(
        "--loudness",
        metavar="PROFILE|LUFS",
        help="Target loudness of the whole: streaming (-14 LUFS), default (-16), broadcast (-23), a number of LUFS, or "
        "none. Default: none, which keeps the level of the source.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Ceiling = Annotated[
    float | None,
    typer.Option(
        metavar="DBTP",
        help="True-peak ceiling in dBTP, -20 to 0. Default: -1.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
TagPrompt = Annotated[
    bool, typer.Option("--tag-prompt", help="Write the prompt to the file's tags.", rich_help_panel=PANEL)
]

TAGS_PANEL = "Tags"

Title = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        help="Title of the music. Default: its genre, key and tempo; `render` keeps that of the file.",
        show_default=False,
        rich_help_panel=TAGS_PANEL,
    ),
]
Artist = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        help="Artist. Default: the model; `render` keeps that of the file. The comment still says that the music is "
        "AI-generated.",
        show_default=False,
        rich_help_panel=TAGS_PANEL,
    ),
]
Album = Annotated[str, typer.Option(metavar="TEXT", help="Album.", show_default=False, rich_help_panel=TAGS_PANEL)]
Cover = Annotated[
    Path | None,
    typer.Option(
        metavar="IMAGE",
        help="Cover picture: a PNG or JPEG file of at most 3 MiB. Not for CAF and W64.",
        show_default=False,
        rich_help_panel=TAGS_PANEL,
    ),
]
