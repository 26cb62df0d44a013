"""What a file is to be, as typed: --format, --sample-rate, --channels, --loudness, --ceiling, --tag-prompt."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    """A format by its short name; the values are what is typed."""

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
        help="WAV with 24 or 16 bits or float, FLAC, MP3 (V0), Ogg Vorbis, Opus. Default: by -o's extension, else wav.",
        show_default=False,
    ),
]
SampleRate = Annotated[
    int,
    typer.Option(
        metavar="HZ", help="Resample, e.g. to 44100 or 48000. Default: as made; Opus 48000.", show_default=False
    ),
]
Channels = Annotated[int, typer.Option(min=0, max=2, help="1: mono, 2: stereo. Default: as made.", show_default=False)]
Loudness = Annotated[
    str,
    typer.Option(
        metavar="PROFILE|LUFS",
        help="streaming (-14 LUFS), default (-16), broadcast (-23), a number of LUFS, or none to leave the level.",
        show_default=False,
    ),
]
Ceiling = Annotated[
    float | None,
    typer.Option(metavar="DBTP", help="True peak that is not passed, -20 to 0. Default: -1.", show_default=False),
]
TagPrompt = Annotated[bool, typer.Option("--tag-prompt", help="Write the prompt into the file's tags.")]
