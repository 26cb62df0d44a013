"""The subcommands `dgx-music token …`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dgx_music.limits import MAX_WEIGHT, MIN_WEIGHT
from gateway.cli.options import AsJson, create_console, run
from gateway.embedded.service_set import DATABASE

app = typer.Typer(
    help="Manage the tokens with which other machines use this server. Without a subcommand, list them.",
    invoke_without_command=True,
)


class TokenScope(StrEnum):
    """What a token lets its bearer do; each includes those before it."""

    READ = "read"
    GENERATE = "generate"
    ADMIN = "admin"


@app.callback()
def _list_without_a_command(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_(as_json)


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Who will use it, e.g. studio-laptop.", show_default=False)
    ],
    scope: Annotated[
        TokenScope,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="read: list and listen. generate: also create, change and delete generations. admin: also manage "
            "tokens and models, and delete in bulk.",
        ),
    ] = TokenScope.GENERATE,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="WHEN",
            help="When it expires: in e.g. 12h, 30d or 8w, or at the end of a day, e.g. 2027-01-31. Default: never.",
            show_default=False,
        ),
    ] = None,
    calls_per_minute: Annotated[
        int,
        typer.Option(
            "--calls-per-minute", metavar="N", min=0, help="Maximum number of calls per minute; 0 for no limit."
        ),
    ] = 0,
    max_queued: Annotated[
        int,
        typer.Option(
            "--max-queued",
            metavar="N",
            min=0,
            help="Maximum number of generations that wait or run at a time; 0 for the server's limit.",
        ),
    ] = 0,
    minutes_per_day: Annotated[
        float,
        typer.Option(
            "--minutes-per-day",
            metavar="X",
            min=0,
            help="Maximum minutes of audio to create in a day (UTC); 0 for no limit.",
        ),
    ] = 0.0,
    weight: Annotated[
        float,
        typer.Option(
            "--weight",
            metavar="X",
            min=MIN_WEIGHT,
            max=MAX_WEIGHT,
            help="Share of what is generated while several clients wait, in relation to others: of two with weights 3 "
            "and 1, the first gets three quarters.",
        ),
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Create a token and print its secret, which is shown only once."""
    from dgx_music.access.v1.access_pb2 import CreateTokenRequest, TokenLimits
    from gateway.cli.commands.access import tokens

    console = create_console(as_json)
    request = CreateTokenRequest(
        name=name,
        scope=f"SCOPE_{scope.name}",
        limits=TokenLimits(calls_per_minute=calls_per_minute, max_queued=max_queued, minutes_per_day=minutes_per_day),
        weight=weight,
    )
    run(lambda session: tokens.create(session, console, request, expires), console, DATABASE)


@app.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """List all tokens, newest first, without their secrets."""
    from gateway.cli.commands.access import tokens

    console = create_console(as_json)
    run(lambda session: tokens.list_all(session, console), console, DATABASE)


@app.command()
def revoke(
    name_or_id: Annotated[str, typer.Argument(metavar="NAME|ID", help="Name or ID of the token.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Revoke a token. It stops working within seconds, and its open calls end."""
    from gateway.cli.commands.access import tokens

    console = create_console(as_json)
    run(lambda session: tokens.revoke(session, console, name_or_id), console, DATABASE)
