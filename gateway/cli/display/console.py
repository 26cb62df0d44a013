"""What a person sees: results on standard output, progress and notices on standard error."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable
from datetime import UTC
from types import TracebackType
from typing import Self

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from dgx_music.storage.v1.storage_pb2 import Generation as GenerationMessage
from dgx_music.storage.v1.storage_pb2 import GenerationStage, GenerationState

UNBOUNDED = 10_000
"""Characters a line where nobody looks: a program or a file gets every line whole."""
WIDTH_UNSEEN = 80
"""Characters a drawing is wide where nobody looks."""
LABEL = 24
"""Characters of a prompt beside its progress bar."""

TIMES_REAL_TIME = "\u00d7 real time"

STATE_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "processing": "cyan"}


class StandardOutput(Console):
    """Standard output. Rich exits where nobody reads it any more, which would tear down the event loop as it runs."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "nobody reads what is printed")


class Screen:
    """Standard output and standard error of one command. With `as_json` only messages go to standard output."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.out = StandardOutput(highlight=False, width=None if sys.stdout.isatty() else UNBOUNDED)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def width(self) -> int:
        """Characters a line of standard output."""
        return self.out.width if self.out.width < UNBOUNDED else WIDTH_UNSEEN

    def notice(self, text: str) -> None:
        """One line for the person, on standard error."""
        self.err.print(text, markup=False)

    def message(self, message: Message) -> None:
        """The message in protobuf's JSON mapping, its fields named as the contract names them, on one line of standard
        output.
        """
        sys.stdout.write(MessageToJson(message, indent=None, preserving_proto_field_name=True) + "\n")
        sys.stdout.flush()

    def rows(self, columns: Iterable[tuple[str, bool]], rows: Iterable[Iterable[str]]) -> None:
        """A table; `columns` are titles, and whether the column is cut where the terminal is too narrow for it."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title, cut in columns:
            table.add_column(
                title, no_wrap=True, overflow="ellipsis" if cut else "ignore", min_width=0 if cut else None
            )
        for row in rows:
            table.add_row(*row)
        self.out.print(table)

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """Names and values, a line each; facts without a value are left out."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in facts:
            if value:
                grid.add_row(name, value)
        self.out.print(grid)

    def progress(self) -> Bars | Lines:
        """Where the progress of generations is shown: bars on a terminal, else a line a stage, with JSON nothing."""
        if self.err.is_terminal:
            return Bars(self.err)
        return Lines(None if self.as_json else self)


class Bars:
    """A live bar for each generation."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[audio]}"),
            TextColumn("{task.fields[speed]}", style="dim"),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, generation: GenerationMessage) -> None:
        """The generation as it stands now."""
        if generation.id not in self._tasks:
            self._tasks[generation.id] = self._progress.add_task("", total=1.0, audio="", speed="")
        task = self._tasks[generation.id]
        seconds = generation.progress * generation.duration_seconds
        elapsed = self._progress.tasks[self._progress.task_ids.index(task)].elapsed or 0.0
        self._progress.update(
            task,
            completed=generation.progress,
            description=f"{escaped(short(generation.prompt, LABEL))} [cyan]{standing(generation)}",
            audio=f"{seconds:.1f}/{generation.duration_seconds:g} s",
            speed=f"{seconds / elapsed:.0f}{TIMES_REAL_TIME}" if seconds and elapsed else "",
        )


class Lines:
    """A line at each change of stage, on a screen or nowhere."""

    def __init__(self, screen: Screen | None) -> None:
        self._screen = screen
        self._shown: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to put away."""

    def show(self, generation: GenerationMessage) -> None:
        """The generation as it stands now."""
        now = standing(generation)
        if self._screen is not None and self._shown.get(generation.id) != now:
            self._shown[generation.id] = now
            self._screen.notice(f"{generation.id}: {now}")


def standing(generation: GenerationMessage) -> str:
    """Its stage while it is being made, else its state: "generating", "completed" …"""
    if generation.stage:
        return GenerationStage.Name(generation.stage).removeprefix("GENERATION_STAGE_").lower().replace("_", " ")
    return GenerationState.Name(generation.state).removeprefix("GENERATION_STATE_").lower()


def styled_standing(generation: GenerationMessage) -> str:
    """`standing`, with its colour."""
    now = standing(generation)
    style = STATE_STYLES.get("processing" if generation.stage else now)
    return f"[{style}]{now}[/]" if style else now


def escaped(text: str) -> str:
    """Text that came from outside, with nothing in it that the terminal or the markup would act on."""
    return escape("".join(character if character.isprintable() else " " for character in text))


def short(text: str, most: int) -> str:
    """At most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def local_time(timestamp: Timestamp) -> str:
    """In this machine's time zone, to the second."""
    return timestamp.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
