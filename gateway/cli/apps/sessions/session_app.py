"""The subcommands `dgx-music session …`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import AsJson, create_console, run
from gateway.embedded.service_set import ALL, LIBRARY

app = typer.Typer(help="Hand takes over to a DAW.")


class FormatArg(StrEnum):
    """A format of sessions, as the value of --format."""

    ARDOUR = "ardour"
    DAWPROJECT = "dawproject"
    REAPER = "reaper"


class PlacementArg(StrEnum):
    """Where the takes are, as the value of --place."""

    LAYERS = "layers"
    SEQUENCE = "sequence"


@app.callback()
def _group() -> None:
    """Keeps the name of the only subcommand."""


@app.command()
def export(
    generation_ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Finished generations, one for each track.", show_default=False)
    ],
    folder: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder of the session; created if missing.")],
    formats: Annotated[
        list[FormatArg] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="ardour, dawproject (Bitwig Studio, Studio One, Cubase) or reaper. May be given more than once. "
            "Default: all three.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="Name of the session. Default: the folder's.", show_default=False),
    ] = "",
    sample_rate: Annotated[
        int, typer.Option("--sample-rate", metavar="HZ", help="Sample rate of the session, which all audio gets.")
    ] = 48_000,
    place: Annotated[
        PlacementArg | None,
        typer.Option(
            metavar="PLACEMENT",
            help="layers: all takes begin together, and only the first is not muted. sequence: one after the other, "
            "each at its own tempo. Default: layers if all have the same tempo.",
            show_default=False,
        ),
    ] = None,
    stems: Annotated[bool, typer.Option("--stems", help="Add the stems of each take, muted. Only for sketch.")] = False,
    midi: Annotated[bool, typer.Option("--midi", help="Add the notes of each take, muted. Only for sketch.")] = False,
    quantize_tempo: Annotated[
        bool,
        typer.Option(
            "--quantize-tempo",
            help="Stretch the takes by up to 8 % so that their bars fall on the grid of one steady tempo, that of the "
            "first take. Requires the extra daw.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a session that is there already.")] = False,
    as_json: AsJson = False,
) -> None:
    """Save takes as a session for DAWs, with tempo, bars, sections, names and colours.

    The folder gets a file for each DAW, and copies of the audio as 24-bit WAV. Bars of the music are bars of the
    session: those of sketch are known, those of other models are heard.
    """
    from gateway.cli.commands.sessions import daw_session

    console = create_console(as_json)
    options = daw_session.build_options(
        name or folder.absolute().name, [one.value for one in formats or FormatArg], sample_rate,
        place.value if place else None, with_stems=stems, with_midi=midi, quantizes_tempo=quantize_tempo,
        overwrites=force,
    )  # fmt: skip
    services = ALL if stems or midi else LIBRARY
    run(lambda session: daw_session.export(session, console, generation_ids, folder, options), console, services)
