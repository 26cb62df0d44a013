"""The subcommands `dgx-music db …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import GlobalOptions, Yes, create_console, run
from gateway.embedded.service_set import LIBRARY

app = typer.Typer(help="Create, migrate, check, back up and clean up the database.")


@app.command()
def init() -> None:
    """Create the database if it does not exist."""
    from gateway.cli.commands.database import db

    print(db.init(GlobalOptions.data_dir))


@app.command()
def migrate() -> None:
    """Upgrade the database to the current schema. No data is lost."""
    from gateway.cli.commands.database import db

    print(db.migrate(GlobalOptions.data_dir))


@app.command()
def reset(yes: Yes = False) -> None:
    """Delete all rows of the database. Audio files are kept."""
    from gateway.cli.commands.database import db

    if not yes:
        typer.confirm(f"Delete all rows of {db.display_url(GlobalOptions.data_dir)}?", abort=True, err=True)
    print(db.reset(GlobalOptions.data_dir))


@app.command()
def check(
    read_files: Annotated[
        bool, typer.Option("--files", help="Also read every audio file and compare it with its recorded SHA-256.")
    ] = False,
) -> None:
    """Check the database and its audio files for inconsistencies. A server may be running.

    Prints one line per problem. The exit status is 1 if there are any.
    """
    from gateway.cli.commands.database import db

    problems = 0
    for line in db.check(GlobalOptions.data_dir, read_files=read_files):
        print(line)
        problems += 1
    create_console().print_notice(f"problems found: {problems}" if problems else "no problems found")
    raise typer.Exit(1 if problems else 0)


@app.command()
def backup(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="File to write. Default: a new file in the folder backups of the data directory.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE if it exists.")] = False,
) -> None:
    """Write a consistent copy of the database, without the audio files. A server may be running."""
    from gateway.cli.commands.database import db

    print(db.create_backup(GlobalOptions.data_dir, file, overwrite=force))


@app.command()
def restore(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A file that `db backup` wrote.", exists=True, dir_okay=False),
    ],
    yes: Yes = False,
) -> None:
    """Replace the database with a backup. The old database is kept until the backup is completely restored."""
    from gateway.cli.commands.database import db

    if not yes and db.has_rows(GlobalOptions.data_dir):
        url = db.display_url(GlobalOptions.data_dir)
        typer.confirm(f"Replace everything in {url} with {file}?", abort=True, err=True)
    print(db.restore(GlobalOptions.data_dir, file))


@app.command()
def vacuum() -> None:
    """Reclaim the space of deleted rows, and update the query planner's statistics."""
    from gateway.cli.commands.database import db

    print(db.vacuum(GlobalOptions.data_dir))


@app.command()
def prune(
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="AGE", help="Delete generations that finished longer ago than this: 30d, 12h or 2w."
        ),
    ],
    confirm: Annotated[
        bool,
        typer.Option("--yes/--dry-run", help="Actually delete. Without this flag, only report what would be deleted."),
    ] = False,
) -> None:
    """Delete old finished generations together with their files. A server may be running."""
    from gateway.cli.commands.database import db_prune
    from gateway.cli.display.units import parse_age

    age = parse_age(older_than, "--older-than")
    console = create_console()
    run(lambda session: db_prune.prune(session, console, age, confirm=confirm), console, LIBRARY)
