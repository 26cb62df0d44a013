"""What commands of `dgx-music` have in common: options, the values that they take, and how they are run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from gateway.embedded.service_set import DATABASE, ServiceSet

if TYPE_CHECKING:
    from gateway.cli.display.console import Screen
    from gateway.cli.session.runner import Job


class State(StrEnum):
    """Where a generation stands, in a filter."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ServedName(StrEnum):
    """What `serve` can be asked for."""

    STORAGE = "storage"
    EXPORT = "export"
    GENERATION = "generation"
    GATEWAY = "gateway"


class Everywhere:
    """The options that hold for every command."""

    data_dir: Path | None = None
    debug: bool = False


Id = Annotated[str, typer.Argument(metavar="ID", help="The generation's id (UUID).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the contract's messages as JSON, one object a line.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows to print.")]
Search = Annotated[str, typer.Option("--search", help="Only prompts that contain this text.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Save a copy of the file here.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file given by -o.")]
Detach = Annotated[bool, typer.Option("--detach", help="Print the id and do not wait; needs a running server.")]

Temperature = Annotated[
    float | None,
    typer.Option(help="Evenness of the odds: below 1 safer, above 1 wilder. Default: the model's.", show_default=False),
]
TopK = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=2048,
        help="Draw from so many of the likeliest tokens, 0: all. Default: the model's.",
        show_default=False,
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(help="Draw from the likeliest tokens of this probability together, 0: off.", show_default=False),
]
Guidance = Annotated[
    float | None,
    typer.Option(help="How much the prompt counts, 1: as it comes. Default: the model's.", show_default=False),
]

Priority = Annotated[
    int, typer.Option(min=-10, max=10, help="Higher is made first; a level counts like ten minutes of waiting.")
]

Continue = Annotated[
    str,
    typer.Option(
        "--continue",
        metavar="ID|FILE",
        help="Go on from the end of a generation, or of a WAV or FLAC file.",
        show_default=False,
    ),
]
ContinueSeconds = Annotated[
    float | None,
    typer.Option(help="How much of that end to go on from, 0.5 to 25. Default: 10.", show_default=False),
]


def run(job: Job, screen: Screen, needs: ServiceSet = DATABASE, model_folder: Path | None = None) -> NoReturn:
    """Does the command's job where the services are, and ends it with the job's status."""
    from gateway.cli.session.runner import run as run_job

    status = run_job(
        job,
        needs=needs,
        data_dir=Everywhere.data_dir,
        debug=Everywhere.debug,
        notice=screen.notice,
        model_folder=model_folder,
    )
    raise typer.Exit(status)


def screen_of(as_json: bool = False) -> Screen:
    """Where the command shows what it did."""
    from gateway.cli.display.console import Screen

    return Screen(as_json=as_json)
