"""What the user sees: results on standard output, progress and notices on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from types import TracebackType
from typing import IO, Any, Self

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.segment import Segment

from dgx_music.limits import MAX_RATING
from dgx_music.storage.v1.storage_pb2 import GENERATION_STATE_PENDING, GenerationStage, GenerationState
from dgx_music.storage.v1.storage_pb2 import Generation as GenerationMessage
from gateway.cli.display.layout import lay_out_fields, lay_out_table
from gateway.cli.session.command_errors import CommandError, Failure, describe_error
from gateway.file_names import cut
from service_runtime.printable_text import make_printable

UNLIMITED_WIDTH = 10_000
"""Characters per line if standard output is not a terminal: programs and files get complete lines."""
DEFAULT_WIDTH = 80
"""Width of a drawing in characters if standard output is not a terminal."""
MAX_LABEL_COLUMNS = 24
MIN_LABEL_COLUMNS = 10
"""Of the prompt beside its progress bar, and on a narrow terminal."""
NARROW = 72
"""Columns of a terminal below which there is no room for a bar beside the prompt, the state and the seconds."""

TIMES_REAL_TIME = "\u00d7 real time"

STATE_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "processing": "cyan"}


class _SafeConsole(RichConsole):
    """Prints no control character except those that Rich itself adds, whatever the text is."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=make_printable(segment.text, keep_lines=True))


class Console:
    """Standard output and standard error of a command. With `as_json`, only messages go to standard output. If a
    file takes it, results go to standard error."""

    def __init__(self, *, as_json: bool = False, out_is_taken: bool = False) -> None:
        self.as_json = as_json
        stream = sys.stderr if out_is_taken else sys.stdout
        width = None if stream.isatty() else UNLIMITED_WIDTH
        self.out = _SafeConsole(stderr=out_is_taken, highlight=False, emoji=False, width=width)
        self.err = _SafeConsole(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self.is_interactive = can_redraw(stream)
        """Whether results go to a terminal that can redraw lines. With FORCE_COLOR, a pipe has colours, but can't."""

    @property
    def width(self) -> int:
        """Characters per line of standard output."""
        return self.out.width if self.out.width < UNLIMITED_WIDTH else DEFAULT_WIDTH

    def print_line(self, text: str) -> None:
        """Prints a line of results, unstyled and as long as it is, so that a terminal's lines can be copied whole."""
        self.out.print(make_printable(text), markup=False, soft_wrap=True)

    def print_notice(self, text: str) -> None:
        """Prints a line to standard error."""
        self.err.print(make_printable(text), markup=False)

    def print_error(self, error: Exception | str) -> int:
        """Reports an error on standard error, after which the command goes on, and returns its exit status. With JSON,
        as the object that also the last error is."""
        failure = describe_error(CommandError(error) if isinstance(error, str) else error)
        self._print_failure(failure)
        return failure.exit_status

    def _print_failure(self, failure: Failure) -> None:
        if self.as_json:
            print(failure.to_json(), file=sys.stderr)
        else:
            self.print_notice(f"error: {failure.message}")

    @contextmanager
    def optional(self, action: str) -> Iterator[None]:
        """Turns any error of the block into a notice that the command failed to do `action`, which it can do without.

        The block must not print: an error of the output is not optional.
        """
        try:
            yield
        except Exception as error:
            self.print_notice(f"failed to {action}: {describe_error(error).message}")

    def print_message(self, message: Message) -> None:
        """Prints the message as one line of JSON, in protobuf's JSON mapping with the contract's field names."""
        self._print_json(MessageToJson(message, indent=None, preserving_proto_field_name=True))

    def print_object(self, fields: Mapping[str, Any]) -> None:
        """Prints an object as one line of JSON, where no message of the contracts is the result."""
        self._print_json(json.dumps(fields))

    def _print_json(self, line: str) -> None:
        # ASCII alone, so that no terminal needs to know a character; JSON's own escapes leave out DEL.
        sys.stdout.write(line.replace("\x7f", "\\u007f") + "\n")
        sys.stdout.flush()

    def print_table(self, columns: Sequence[tuple[str, bool]], rows: Iterable[Iterable[str]], none: str = "") -> None:
        """Prints a table, see `lay_out_table`. If it has no rows, `none` says so on standard error."""
        shown = list(rows)
        for part in lay_out_table(columns, shown, self.out.width):
            self.out.print(part, crop=False)
        if not shown and none:
            self.print_notice(none)

    def print_fields(self, fields: Iterable[tuple[str, str]]) -> None:
        """Prints a line per name and value, see `lay_out_fields`."""
        width = self.out.width if self.out.width < UNLIMITED_WIDTH else None
        for line in lay_out_fields(fields, width):
            self.out.print(line, soft_wrap=True)

    def progress(self) -> ProgressBars | ProgressLines:
        """Returns the display of progress: bars on a terminal, else a line per stage, or nothing with JSON."""
        if can_redraw(sys.stderr):
            return ProgressBars(self.err)
        return ProgressLines(None if self.as_json else self)


class ProgressBars:
    """Shows a live progress bar per generation."""

    def __init__(self, console: RichConsole) -> None:
        self._label_columns = MIN_LABEL_COLUMNS if console.width < NARROW else MAX_LABEL_COLUMNS
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), TextColumn("{task.fields[audio]}")]
        if console.width >= NARROW:
            columns.insert(1, BarColumn())
            columns.append(TextColumn("{task.fields[speed]}"))
        self._progress = Progress(
            *columns,
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._retries: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, generation: GenerationMessage) -> None:
        """Shows the current state of the generation."""
        if generation.id not in self._tasks:
            self._tasks[generation.id] = self._progress.add_task("", total=1.0, audio="", speed="")
        task = self._tasks[generation.id]
        seconds = generation.progress * generation.duration_seconds
        elapsed = self._progress.tasks[self._progress.task_ids.index(task)].elapsed or 0.0
        if (retry := format_retry(generation)) and self._retries.get(generation.id) != retry:
            self._retries[generation.id] = retry
            self._progress.console.print(make_printable(retry), markup=False)
        label = escape_text(truncate(generation.prompt, self._label_columns))
        self._progress.update(
            task,
            completed=generation.progress,
            description=f"{label} [cyan]{format_state(generation)}",
            audio=f"{seconds:.1f}/{generation.duration_seconds:g} s",
            speed=f"{seconds / elapsed:.0f}{TIMES_REAL_TIME}" if seconds and elapsed else "",
        )


class ProgressLines:
    """Prints a line at each change of stage, or nothing without a console."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._shown: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Has nothing to clean up."""

    def update(self, generation: GenerationMessage) -> None:
        """Shows the current state of the generation."""
        state = format_state(generation)
        if self._console is not None and self._shown.get(generation.id) != state:
            self._shown[generation.id] = state
            self._console.print_notice(format_retry(generation) or f"{generation.id}: {state}")


def format_state(generation: GenerationMessage) -> str:
    """Returns the stage while the generation is running, else the state: "generating", "completed" …"""
    if generation.stage:
        return GenerationStage.Name(generation.stage).removeprefix("GENERATION_STAGE_").lower().replace("_", " ")
    return GenerationState.Name(generation.state).removeprefix("GENERATION_STATE_").lower()


def format_retry(generation: GenerationMessage) -> str:
    """Returns why the generation waits for another attempt; empty if it does not."""
    if generation.state != GENERATION_STATE_PENDING or not generation.error_message:
        return ""
    at = ""
    if generation.HasField("not_before"):
        at = f" at {generation.not_before.ToDatetime(tzinfo=UTC).astimezone():%H:%M:%S}"
    return f"{generation.id}: attempt {generation.attempt} failed, trying again{at}: {generation.error_message}"


def format_styled_state(generation: GenerationMessage) -> str:
    """Returns the same with the markup for its colour."""
    state = format_state(generation)
    style = STATE_STYLES.get("processing" if generation.stage else state)
    return f"[{style}]{state}[/]" if style else state


def format_rating(generation: GenerationMessage) -> str:
    """Returns for example "4/5", or nothing without a rating. Every terminal and font has these characters."""
    return f"{generation.rating}/{MAX_RATING}" if generation.rating else ""


def escape_text(text: str) -> str:
    """Returns untrusted text with Rich markup escaped, see also `make_printable`."""
    return escape(make_printable(text))


def can_redraw(stream: IO[str]) -> bool:
    """Returns whether the stream is a terminal on which lines can be drawn again, as a progress bar is."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def truncate(text: str, max_columns: int) -> str:
    """Returns the text in at most `max_columns` columns of a terminal, with an ellipsis if it is longer."""
    return text if cell_len(text) <= max_columns else cut(text, max_columns - 1, cell_len) + "…"


def format_local_time(timestamp: Timestamp) -> str:
    """Returns the time in the local time zone, to the second."""
    return timestamp.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
