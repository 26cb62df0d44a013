"""The options of `generate` and `play` for listening, and those for many prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PANEL = "Listening"
PROMPT_FILE_PANEL = "Many prompts"

PlayOption = Annotated[
    bool,
    typer.Option(
        "--play",
        help="Play the music through the sound card while it is generated. Requires the extra play.",
        rich_help_panel=PANEL,
    ),
]
ToStdout = Annotated[
    bool,
    typer.Option(
        "--stdout",
        help="Write the samples to standard output as WAV while they are generated, e.g. for | ffplay -. `-o -` writes "
        "the finished file instead.",
        rich_help_panel=PANEL,
    ),
]
Raw = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="With --stdout: write float32 little-endian samples without a header.",
        rich_help_panel=PANEL,
    ),
]
Open = Annotated[
    bool,
    typer.Option("--open", help="Open the finished file with the desktop's default program.", rich_help_panel=PANEL),
]
FromSeconds = Annotated[
    float,
    typer.Option(
        "--from", metavar="SECONDS", min=0, help="Start at this position. Default: the beginning.", show_default=False
    ),
]
PromptFile = Annotated[
    str,
    typer.Option(
        "--file",
        metavar="FILE",
        help="Generate one piece per line of a .txt file, row of a .csv file or object of a .jsonl file; - reads "
        "standard input. Columns and keys have the names of options: prompt, duration, seed, model, output … Run the "
        "command again to continue where it was interrupted.",
        show_default=False,
        rich_help_panel=PROMPT_FILE_PANEL,
    ),
]
OutputDir = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        metavar="FOLDER",
        help="With --file: save copies of the files here; created if missing.",
        show_default=False,
        rich_help_panel=PROMPT_FILE_PANEL,
    ),
]
FileName = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="TEMPLATE",
        help='With --output-dir: names of the files, as for `files export`. Default: "{date} {prompt:.40} {seed}".',
        show_default=False,
        rich_help_panel=PROMPT_FILE_PANEL,
    ),
]
RunName = Annotated[
    str,
    typer.Option(
        "--run",
        metavar="NAME",
        help="With --file: name of the run. The same name continues that run; a new one generates everything again.",
        show_default=False,
        rich_help_panel=PROMPT_FILE_PANEL,
    ),
]
