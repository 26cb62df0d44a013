"""The options for the audio file: --format, --sample-rate, --channels, --loudness, --ceiling and --tag-prompt."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dgx_music.limits import MAX_CHANNELS

PANEL = "Audio file"


class Format(StrEnum):
    """A file format of the contract; the value is what the user types."""

    WAV_PCM_24 = "wav"
    WAV_PCM_16 = "wav-16"
    WAV_FLOAT = "wav-float"
    FLAC_24 = "flac"
    FLAC_16 = "flac-16"
    MP3 = "mp3"
    OGG_VORBIS = "ogg"
    OGG_OPUS = "opus"


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="File format; wav and flac have 24 bits, mp3 is VBR V0. Default: by the extension of --output, or wav.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
SampleRate = Annotated[
    int,
    typer.Option(
        metavar="HZ",
        help="Resample to this rate, e.g. 44100 or 48000. Default: unchanged; 48000 for Opus.",
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
