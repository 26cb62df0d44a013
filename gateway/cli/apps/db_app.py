"""The subcommands `dgx-music db …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import AsJson, GlobalOptions, Yes, confirm, create_console, run
from gateway.embedded.service_set import LIBRARY

app = typer.Typer(help="Create, migrate, check, back up and clean up the database.")


@app.command()
def init(as_json: AsJson = False) -> None:
    """Create the database if it does not exist."""
    from gateway.cli.commands.database import db

    db.init(GlobalOptions.data_dir).print(create_console(as_json))


@app.command()
def migrate(as_json: AsJson = False) -> None:
    """Upgrade the database to the current schema. No data is lost."""
    from gateway.cli.commands.database import db

    db.migrate(GlobalOptions.data_dir).print(create_console(as_json))


@app.command()
def reset(yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete all rows of the database. Audio files are kept."""
    from gateway.cli.commands.database import db

    if not yes:
        confirm(f"Delete all rows of {db.display_url(GlobalOptions.data_dir)}?")
    db.reset(GlobalOptions.data_dir).print(create_console(as_json))


@app.command()
def check(
    read_files: Annotated[
        bool, typer.Option("--files", help="Also read every audio file and compare it with its recorded SHA-256.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the database and its audio files for inconsistencies. A server may be running.

    Prints one line per problem. The exit status is 1 if there are any.
    """
    from gateway.cli.commands.database import db

    console, problems = create_console(as_json), 0
    for problem in db.check(GlobalOptions.data_dir, read_files=read_files):
        problem.print(console)
        problems += 1
    console.print_notice(f"problems found: {problems}" if problems else "no problems found")
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
    as_json: AsJson = False,
) -> None:
    """Write a consistent copy of the database, without the audio files. A server may be running."""
    from gateway.cli.commands.database import db

    db.create_backup(GlobalOptions.data_dir, file, overwrite=force).print(create_console(as_json))


@app.command()
def restore(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A file that `db backup` wrote.", exists=True, dir_okay=False),
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Replace the database with a backup. The old database is kept until the backup is completely restored."""
    from gateway.cli.commands.database import db

    if not yes and db.has_rows(GlobalOptions.data_dir):
        url = db.display_url(GlobalOptions.data_dir)
        confirm(f"Replace everything in {url} with {file}?")
    db.restore(GlobalOptions.data_dir, file).print(create_console(as_json))


@app.command()
def vacuum(as_json: AsJson = False) -> None:
    """Reclaim the space of deleted rows, and update the query planner's statistics."""
    from gateway.cli.commands.database import db

    db.vacuum(GlobalOptions.data_dir).print(create_console(as_json))


@app.command()
def reindex(as_json: AsJson = False) -> None:
    """Rebuild the index by which text in prompts is found. `db check` says when this is necessary."""
    from gateway.cli.commands.database import db

    db.reindex(GlobalOptions.data_dir).print(create_console(as_json))


@app.command()
def prune(
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="AGE", help="Delete generations that finished longer ago than this: 30d, 12h or 2w."
        ),
    ],
    yes: Annotated[
        bool,
        typer.Option("--yes/--dry-run", help="Actually delete. Without this flag, only report what would be deleted."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old finished generations together with their files. A server may be running."""
    from gateway.cli.commands.database import db_prune
    from gateway.cli.display.units import parse_age

    age = parse_age(older_than, "--older-than")
    console = create_console(as_json)
    run(lambda session: db_prune.prune(session, console, age, confirm=yes), console, LIBRARY)
