"""Arguments and options that several subcommands share, and how a subcommand is run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from dgx_music.limits import (
    DEFAULT_CONTINUATION_SECONDS,
    MAX_CONTINUATION_SECONDS,
    MAX_PRIORITY,
    MAX_RATING,
    MAX_SEED,
    MAX_TOP_K,
    MIN_CONTINUATION_SECONDS,
    MIN_PRIORITY,
)
from gateway.embedded.service_set import DATABASE, ServiceSet
from service_runtime.printable_text import make_printable

if TYPE_CHECKING:
    from gateway.cli.display.console import Console
    from gateway.cli.session.runner import Command


DEFAULT_NAME = "{date} {prompt:.40} {seed}"
"""The template for the names of files where none is given."""


class State(StrEnum):
    """A generation's state, as the value of --state."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ServiceArg(StrEnum):
    """A service, as the argument of `serve`."""

    STORAGE = "storage"
    EXPORT = "export"
    GENERATION = "generation"
    GATEWAY = "gateway"


class GlobalOptions:
    """The options that every subcommand accepts."""

    data_dir: Path | None = None
    debug: bool = False
    subcommand: str = ""
    """Its name, or the group's that it belongs to."""


def _check_seed(seed: int | None) -> int | None:
    # With `min` and `max`, the help would show a number of 19 digits.
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise typer.BadParameter(f"must be 0 to {MAX_SEED}, not {seed}")
    return seed


Id = Annotated[str, typer.Argument(metavar="ID", help="ID of the generation (a UUID).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
Limit = Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Maximum number of rows to print.")]
Search = Annotated[
    str, typer.Option("--search", metavar="TEXT", help="Only prompts that contain this text.", show_default=False)
]
States = Annotated[
    list[State] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help="Only generations in this state: pending, processing, completed, failed or cancelled. May be given more "
        "than once.",
        show_default=False,
    ),
]
ModelFilter = Annotated[
    str, typer.Option("--model", metavar="NAME", help="Only generations of this model.", show_default=False)
]
MinRating = Annotated[
    int,
    typer.Option(
        "--min-rating",
        metavar="N",
        min=0,
        max=MAX_RATING,
        help=f"Only generations rated at least this, 1 to {MAX_RATING}.",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Save a copy of the audio file here; - is standard output.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file given by --output.")]
Detach = Annotated[
    bool,
    typer.Option("--detach", help="Queue the generation, print its ID and exit. Requires a running server."),
]

PromptText = Annotated[
    str | None,
    typer.Argument(
        metavar="PROMPT",
        help='Description of the music, e.g. "lo-fi hip hop at 84 BPM in A minor".',
        show_default=False,
    ),
]
Duration = Annotated[
    float | None,
    typer.Option(
        "--duration",
        "-d",
        metavar="SECONDS",
        help="Length of the music in seconds. Default: that of --bars, or 16, or the most that the model can.",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=_check_seed,
        help="Random seed, for reproducible output. Default: random.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        metavar="NAME|FOLDER",
        help="Name or folder of the model. Default: the server's default model.",
        show_default=False,
    ),
]
Count = Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Number of variations, using consecutive seeds.")]
Png = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Draw waveform, short-term loudness and spectrogram to this PNG file. Requires matplotlib.",
        show_default=False,
    ),
]

_SAMPLING_OPTIONS: Mapping[str, tuple[str, str, int | None]] = {
    "temperature": ("T", "Sampling temperature; lower is more predictable, higher more varied.", None),
    "top_k": ("K", "Sample from the K most likely tokens; 0 disables top-k.", MAX_TOP_K),
    "top_p": ("P", "Nucleus sampling threshold, 0 to 1; 0 disables top-p.", None),
    "guidance": ("SCALE", "Classifier-free guidance scale, 0 to 20; 1 disables guidance.", None),
}
"""Name → metavar, help and maximum."""


def sampling_option(name: str, default: str = "set by the model") -> Any:
    """Returns the option of a sampling parameter. `default` says what applies if it is not given."""
    metavar, text, maximum = _SAMPLING_OPTIONS[name]
    return typer.Option(
        metavar=metavar,
        min=None if maximum is None else 0,
        max=maximum,
        help=f"{text} Default: {default}.",
        show_default=False,
        rich_help_panel="Sampling",
    )


Temperature = Annotated[float | None, sampling_option("temperature")]
TopK = Annotated[int | None, sampling_option("top_k")]
TopP = Annotated[float | None, sampling_option("top_p")]
Guidance = Annotated[float | None, sampling_option("guidance")]

Priority = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=MIN_PRIORITY,
        max=MAX_PRIORITY,
        help="Queue priority; higher runs first. One level equals ten minutes of waiting.",
    ),
]

Continue = Annotated[
    str,
    typer.Option(
        "--continue",
        metavar="ID|FILE",
        help="Continue from the end of a generation, a clip, or an audio file, such as WAV, FLAC, MP3 or Ogg.",
        show_default=False,
    ),
]
ContinueSeconds = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help=f"How many seconds at the end of the source to continue from, {MIN_CONTINUATION_SECONDS:g} to "
        f"{MAX_CONTINUATION_SECONDS:g}. Default: {DEFAULT_CONTINUATION_SECONDS:g}.",
        show_default=False,
    ),
]


def run(
    command: Command, console: Console, services: ServiceSet = DATABASE, model_folder: Path | None = None
) -> NoReturn:
    """Runs the command at a gateway, with embedded `services` if no server is running, and exits with its status."""
    from gateway.cli.session.runner import run_command

    status = run_command(
        command,
        name=f"dgx-music {GlobalOptions.subcommand}",
        services=services,
        data_dir=GlobalOptions.data_dir,
        debug=GlobalOptions.debug,
        print_notice=console.print_notice,
        model_folder=model_folder,
    )
    raise typer.Exit(status)


def confirm(question: str) -> None:
    """Asks the user on standard error. Raises typer.Abort unless the answer is yes."""
    try:
        is_confirmed = typer.confirm(make_printable(question), err=True)
    except BaseException:  # Ctrl-C or the end of the input, after which the cursor is still behind the question.
        print(file=sys.stderr)
        raise
    if not is_confirmed:
        raise typer.Abort


def create_console(as_json: bool = False, output: Path | None = None) -> Console:
    """Returns the console that a command prints to, which leaves standard output to an audio file that goes there."""
    from gateway.cli.display.console import Console
    from gateway.cli.session.standard_streams import STANDARD_OUTPUT

    return Console(as_json=as_json, out_is_taken=output == STANDARD_OUTPUT)
