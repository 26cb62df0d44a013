"""The options that shape music besides its prompt: further texts, sections, audio to follow, adapters and loops."""

from __future__ import annotations

from typing import Annotated

import typer

from dgx_music.limits import MAX_BEATS_PER_BAR, MAX_STEPS

PANEL = "Shaping"

Negative = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        help="What the music is guided away from. Has no effect with --guidance 1.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT[:WEIGHT]",
        help='A further text that guides the same music, and its weight beside the prompt, which has 1: "strings:0.5". '
        "May be given up to 3 times.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Sections = Annotated[
    list[str] | None,
    typer.Option(
        "--section",
        metavar="FROM:TO TEXT",
        help='A part of the music with a prompt of its own, in seconds: --section 0:16 "calm piano" --section 16:48 '
        '"drop, drums". The prompt applies elsewhere. May be given up to 32 times.',
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
MelodySource = Annotated[
    str,
    typer.Option(
        "--melody",
        metavar="ID|FILE",
        help="Follow the melody of a generation, a clip, or an audio file.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
MelodyStart = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="Where the melody starts in its source. Default: its beginning.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
StyleSource = Annotated[
    str,
    typer.Option(
        "--style",
        metavar="ID|FILE",
        help="Follow the style of a few seconds of a generation, a clip, or an audio file.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
StyleStart = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="Where the excerpt for the style starts in its source. Default: its beginning.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
TextGuidance = Annotated[
    float | None,
    typer.Option(
        metavar="SCALE",
        help="With --style: how much more the text counts than the style, 1 to 10. Default: 5.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="NAME[:SCALE]",
        help="Apply an installed LoRA adapter, at a scale of 1 unless given. May be given up to 4 times.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Lyrics = Annotated[
    str,
    typer.Option(
        metavar="TEXT|@FILE",
        help='Lyrics to sing, or the text file that has them. Lines such as "\\[chorus]" name the parts.',
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Steps = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        max=MAX_STEPS,
        help="Number of denoising steps of a diffusion model. Default: set by the model.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
LoopBars = Annotated[
    str,
    typer.Option(
        "--bars",
        "--loop",
        metavar="N",
        help='Make a seamless loop of exactly this many bars, e.g. 8, at the tempo that the prompt names ("84 BPM").',
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
LoopTempo = Annotated[
    float | None,
    typer.Option(
        "--tempo",
        metavar="BPM",
        help="With --bars: the tempo, 20 to 400 beats per minute. Default: the one that the prompt names.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
BeatsPerBar = Annotated[
    int,
    typer.Option(
        "--beats",
        metavar="N",
        min=0,
        max=MAX_BEATS_PER_BAR,
        help="With --bars: beats in a bar. Default: 4.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
