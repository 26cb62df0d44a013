"""`dgx-music db …`: the database, while no server of its data directory is up."""

from __future__ import annotations

import typer

from gateway.options import Everywhere, Yes

app = typer.Typer(help="Look after the database.")


@app.command()
def init() -> None:
    """Create the database."""
    from gateway import serving

    print(serving.init_database(Everywhere.data_dir))


@app.command()
def migrate() -> None:
    """Bring the database to the current schema. Nothing is lost."""
    from gateway import serving

    print(serving.migrate_database(Everywhere.data_dir))


@app.command()
def reset(yes: Yes = False) -> None:
    """Delete all rows. Audio files stay."""
    from gateway import serving

    if not yes:
        typer.confirm(f"Delete every row of {serving.database_shown(Everywhere.data_dir)}?", abort=True, err=True)
    print(serving.reset_database(Everywhere.data_dir))
