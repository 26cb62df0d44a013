"""The progress of many generations in one view: how many are done, those that run, and the time that is left."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from dgx_music.storage.v1.storage_pb2 import GENERATION_STATE_PROCESSING, Generation
from gateway.cli.display.console import MAX_LABEL_COLUMNS, Console, can_redraw, escape_text, format_state, truncate

MAX_RUNNING_SHOWN = 8
LINE_SECONDS = 5.0
"""How often a line is printed where there is no terminal."""


@dataclass(slots=True)
class BatchTally:
    """How far the batch is. Seconds are those of the music."""

    total: int
    total_seconds: float
    made: int = 0
    present: int = 0
    """Made by an earlier run."""
    failed: int = 0
    made_seconds: float = 0.0
    other_seconds: float = 0.0
    """Of those that are present or failed."""

    @property
    def done(self) -> int:
        """The number of generations that need no more work."""
        return self.made + self.present + self.failed

    def format(self) -> str:
        """Returns for example "12 of 100 done, 3 of them by an earlier run, 1 failed"."""
        parts = [f"{self.made + self.present} of {self.total} done"]
        parts += [f"{self.present} of them by an earlier run"] * bool(self.present)
        parts += [f"{self.failed} failed"] * bool(self.failed)
        return ", ".join(parts)


class BatchProgress:
    """Shows the progress on standard error: bars on a terminal, else a line from time to time, nothing with JSON."""

    def __init__(self, console: Console, tally: BatchTally) -> None:
        self._console = console
        self._tally = tally
        self._started_at = self._printed_at = time.monotonic()
        self._running: dict[str, Generation] = {}
        self._bars = _Bars(console.err, tally) if can_redraw(sys.stderr) else None

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, generation: Generation) -> None:
        """Shows the state of one that has not finished."""
        self._running[generation.id] = generation
        if self._bars is not None:
            self._bars.update_running(generation)
            self._bars.update_all(self._time_left())

    def finish(self, generation_id: str) -> None:
        """Shows that one has finished, after it has been added to the tally."""
        self._running.pop(generation_id, None)
        if self._bars is not None:
            self._bars.remove_running(generation_id)
            self._bars.update_all(self._time_left())
        elif not self._console.as_json and time.monotonic() - self._printed_at > LINE_SECONDS:
            self._printed_at = time.monotonic()
            self._console.print_notice(f"{self._tally.format()}{self._time_left()}")

    def _time_left(self) -> str:
        """Returns ", about 3:20 left" by the speed until now; empty if nothing has been made yet."""
        running = sum(one.progress * one.duration_seconds for one in self._running.values())
        made = self._tally.made_seconds + running
        if not made:
            return ""
        left = max(self._tally.total_seconds - self._tally.other_seconds - made, 0.0)
        return f", about {format_time((time.monotonic() - self._started_at) * left / made)} left"


class _Bars:
    def __init__(self, console: RichConsole, tally: BatchTally) -> None:
        self._tally = tally
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            # Else results would go to standard error, even if standard output is a file.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._all = self._progress.add_task("", total=tally.total, note="")
        self._running: dict[str, TaskID] = {}
        self.update_all("")

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def update_all(self, time_left: str) -> None:
        failed = f"[red]{self._tally.failed} failed[/]" if self._tally.failed else ""
        self._progress.update(
            self._all,
            completed=self._tally.done,
            description=f"[bold]{self._tally.done}/{self._tally.total}",
            note=f"{failed}{time_left}".removeprefix(", "),
        )

    def update_running(self, generation: Generation) -> None:
        task = self._running.get(generation.id)
        if task is None:
            if generation.state != GENERATION_STATE_PROCESSING or len(self._running) == MAX_RUNNING_SHOWN:
                return
            task = self._running[generation.id] = self._progress.add_task("", total=1.0, note="")
        self._progress.update(
            task,
            completed=generation.progress,
            description=escape_text(truncate(generation.prompt, MAX_LABEL_COLUMNS)),
            note=f"[cyan]{format_state(generation)}",
        )

    def remove_running(self, generation_id: str) -> None:
        if (task := self._running.pop(generation_id, None)) is not None:
            self._progress.remove_task(task)


def format_time(seconds: float) -> str:
    """Returns for example "0:42", "3:20" or "1:02:00"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
