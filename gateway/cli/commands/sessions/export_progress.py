"""Shows how far the export of a session is: a bar on a terminal, else a line for each step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from gateway.cli.display.console import Console, can_redraw, escape_text, truncate
from gateway.daw.session_progress import ReportProgress

MAX_LABEL_COLUMNS = 40


@contextmanager
def show_progress(console: Console) -> Iterator[ReportProgress]:
    """Yields what the export reports its progress to. With JSON and without a terminal, nothing is shown."""
    if not can_redraw(sys.stderr):
        yield _lines(console)
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console.err, transient=True) as progress:
        task = progress.add_task("", total=1.0)

        def draw(text: str, share: float) -> None:
            progress.update(task, completed=share, description=escape_text(truncate(text, MAX_LABEL_COLUMNS)))

        yield draw


def _lines(console: Console) -> ReportProgress:
    shown = ""

    def print_step(text: str, share: float) -> None:
        nonlocal shown
        if text != shown and not console.as_json:
            shown = text
            console.print_notice(f"{share:4.0%}  {text}")

    return print_step
