"""`dgx-music db …`: what keeps the database in order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import Everywhere, Yes, run, screen_of
from gateway.embedded.service_set import LIBRARY

app = typer.Typer(help="Look after the database.")


@app.command()
def init() -> None:
    """Create the database."""
    from gateway.cli.commands import db

    print(db.init(Everywhere.data_dir))


@app.command()
def migrate() -> None:
    """Bring the database to the current schema. Nothing is lost."""
    from gateway.cli.commands import db

    print(db.migrate(Everywhere.data_dir))


@app.command()
def reset(yes: Yes = False) -> None:
    """Delete all rows. Audio files stay."""
    from gateway.cli.commands import db

    if not yes:
        typer.confirm(f"Delete every row of {db.shown(Everywhere.data_dir)}?", abort=True, err=True)
    print(db.reset(Everywhere.data_dir))


@app.command()
def check(
    read_files: Annotated[
        bool, typer.Option("--files", help="Read every audio file, and compare it with the SHA-256 noted for it.")
    ] = False,
) -> None:
    """Look for what can't be right, in every row and with every file; also while a server is up.

    Prints a line for each thing that is wrong; the exit status is 1 if there is any.
    """
    from gateway.cli.commands import db

    wrong = 0
    for line in db.check(Everywhere.data_dir, read_files=read_files):
        print(line)
        wrong += 1
    screen_of().notice(f"{wrong} things are wrong" if wrong else "all is well")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def backup(
    file: Annotated[
        Path | None,
        typer.Argument(help="Where to. Default: a new file in the data directory's backups/.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Copy the database as of this moment; also while a server is up. Audio files are not in it."""
    from gateway.cli.commands import db

    print(db.back_up(Everywhere.data_dir, file, overwrite=force))


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `db backup` made.", exists=True, dir_okay=False)], yes: Yes = False
) -> None:
    """Put a backup in the database's place. Until it is there whole, the old one stays."""
    from gateway.cli.commands import db

    if not yes and db.has_rows(Everywhere.data_dir):
        shown = db.shown(Everywhere.data_dir)
        typer.confirm(f"Replace all that is in {shown} by {file}?", abort=True, err=True)
    print(db.restore(Everywhere.data_dir, file))


@app.command()
def vacuum() -> None:
    """Give the space of deleted rows back, and renew the figures that queries are planned by."""
    from gateway.cli.commands import db

    print(db.vacuum(Everywhere.data_dir))


@app.command()
def prune(
    older_than: Annotated[
        str,
        typer.Option("--older-than", metavar="AGE", help="Finished longer ago than this, e.g. 30d, 12h, 2w."),
    ],
    really: Annotated[bool, typer.Option("--yes/--dry-run", help="Do it; or only say how much it is.")] = False,
) -> None:
    """Delete generations that finished long ago, with their files; also while a server is up.

    Without --yes, only says how many there are.
    """
    from gateway.cli.commands import db_prune
    from gateway.cli.display.units import age_of

    age = age_of(older_than, "--older-than")
    screen = screen_of()
    run(lambda session: db_prune.prune(session, screen, age, really=really), screen, LIBRARY)
