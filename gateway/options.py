"""What commands of `dgx-music` have in common: options, and the values that they take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

MAX_SEED = 2**63 - 1


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
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Save the WAV here too.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file given by -o.")]
Detach = Annotated[bool, typer.Option("--detach", help="Print the id and do not wait; needs a running server.")]
