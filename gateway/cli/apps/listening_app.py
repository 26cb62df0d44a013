"""The subcommands for one generation that is queued or runs: play, watch, cancel and retry."""

from __future__ import annotations

import typer

from gateway.cli.commands.generation.listening_flags import FromSeconds, Raw, ToStdout
from gateway.cli.options import AsJson, Detach, Id, create_console, run
from gateway.embedded.service_set import ALL

app = typer.Typer()


@app.command()
def play(
    generation_id: Id,
    from_seconds: FromSeconds = 0.0,
    to_stdout: ToStdout = False,
    raw: Raw = False,
) -> None:
    """Play a generation or a clip: live while it is being generated, else its file. Ctrl-C stops playing.

    Requires the extra play and a sound card, or with --stdout another program that plays it.
    """
    from gateway.cli.commands.generation import play
    from gateway.cli.session.standard_streams import STANDARD_OUTPUT

    if raw and not to_stdout:
        raise typer.BadParameter("--raw: can only be used together with --stdout")
    console = create_console(output=STANDARD_OUTPUT if to_stdout else None)
    sink = play.create_sink(console, to_stdout=to_stdout, is_raw=raw)
    run(lambda session: play.play(session, console, generation_id, sink, from_seconds=from_seconds), console, ALL)


@app.command()
def watch(generation_id: Id, as_json: AsJson = False) -> None:
    """Follow a generation until it finishes. Ctrl-C stops following; the generation continues."""
    from gateway.cli.commands.generation import generate

    console = create_console(as_json)
    run(lambda session: generate.watch(session, console, generation_id), console, ALL)


@app.command()
def cancel(generation_id: Id, as_json: AsJson = False) -> None:
    """Cancel a queued or running generation."""
    from gateway.cli.commands import inspect

    console = create_console(as_json)
    run(lambda session: inspect.cancel(session, console, generation_id), console)


@app.command()
def retry(generation_id: Id, detach: Detach = False, as_json: AsJson = False) -> None:
    """Retry a failed generation; if its audio was complete, only the file is made again. Ctrl-C cancels it."""
    from gateway.cli.commands.generation import generate

    console = create_console(as_json)
    run(lambda session: generate.retry(session, console, generation_id, detach=detach), console, ALL)
