"""`dgx-music files …`: the audio files, and what keeps them in order."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gateway.cli.options import AsJson, Limit, Yes, run, screen_of
from gateway.embedded.service_set import LIBRARY

app = typer.Typer(help="Look after the audio files: finished ones, renders of them, and clips that were uploaded.")


class Kind(StrEnum):
    """What a file is, in a filter."""

    OUTPUT = "output"
    CLIP = "clip"
    RENDER = "render"


Kinds = Annotated[list[Kind] | None, typer.Option("--kind", help="Only these.", show_default=False)]


@app.command(name="list")
def list_(limit: Limit = 20, kind: Kinds = None, as_json: AsJson = False) -> None:
    """List files: finished ones by day, newest first, then clips, then renders."""
    from gateway.cli.commands import files

    screen = screen_of(as_json)
    kinds = files.kinds_of(kind)
    run(lambda session: files.list_files(session, screen, limit=limit, kinds=kinds), screen, LIBRARY)


@app.command()
def stats(as_json: AsJson = False) -> None:
    """Show how many files there are, how large, and how much room is left."""
    from gateway.cli.commands import files

    screen = screen_of(as_json)
    run(lambda session: files.statistics(session, screen), screen, LIBRARY)


@app.command()
def verify(
    generation_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Of these generations. Default: of all.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only look whether they are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read finished files and renders, and compare each with the SHA-256 that it had when it landed.

    Prints a line for each that is changed, missing or unreadable; the exit status is 1 if there is any.
    """
    from gateway.cli.commands import files

    screen = screen_of(as_json)
    run(lambda session: files.verify(session, screen, generation_ids or [], quick=quick), screen, LIBRARY)


@app.command()
def cleanup(
    older_than: Annotated[
        str,
        typer.Option(
            metavar="AGE",
            help="What landed longer ago than e.g. 30d, 12h, 2w; clips and renders: was not used for so long.",
            show_default=False,
        ),
    ] = "",
    keep: Annotated[
        str, typer.Option(metavar="SIZE", help="The oldest, until the rest has e.g. 50GB.", show_default=False)
    ] = "",
    orphans: Annotated[bool, typer.Option("--orphans", help="Files that belong to no generation.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Generations whose file is gone.")] = False,
    kind: Kinds = None,
    really: Annotated[bool, typer.Option("--yes/--dry-run", help="Do it; or only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what is too old, too much or nobody's. With a finished file its generation goes.

    What is being made, listened to or waited for to go on from stays. Without --yes, only says what would go.
    """
    from gateway.cli.commands import files

    if not (older_than or keep or orphans or missing):
        raise typer.BadParameter("say what goes: --older-than, --keep, --orphans or --missing")
    screen = screen_of(as_json)
    request = files.cleanup_request(
        older_than, keep, orphans=orphans, missing=missing, kinds=files.kinds_of(kind), dry_run=not really
    )
    run(lambda session: files.cleanup(session, screen, request), screen, LIBRARY)


@app.command()
def delete(
    clip_id: Annotated[str, typer.Argument(metavar="ID", help="The clip's id (UUID).", show_default=False)],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete a clip that was uploaded."""
    from gateway.cli.commands import files

    if not yes:
        typer.confirm(f"Delete clip {clip_id}?", abort=True, err=True)
    screen = screen_of(as_json)
    run(lambda session: files.delete_clip(session, screen, clip_id), screen, LIBRARY)
