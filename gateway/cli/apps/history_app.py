"""The subcommands for what was made: history, show, rate, render, download, midi, stems, delete,
comparisons, stats and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.commands.generation.output_flags import (
    Album,
    Artist,
    BitRate,
    Ceiling,
    Channels,
    Cover,
    FormatOption,
    Loudness,
    Quality,
    SampleRate,
    Title,
)
from gateway.cli.options import (
    AsJson,
    Force,
    Id,
    Limit,
    MinRating,
    ModelFilter,
    Output,
    Png,
    Search,
    States,
    Yes,
    confirm,
    create_console,
    run,
)
from gateway.embedded.service_set import ALL, LIBRARY

app = typer.Typer()


@app.command()
def history(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="Only prompts that contain this text.", show_default=False)
    ] = "",
    search: Search = "",
    state: States = None,
    model: ModelFilter = "",
    client: Annotated[
        str,
        typer.Option(metavar="NAME", help="Only generations that this client created.", show_default=False),
    ] = "",
    min_rating: MinRating = 0,
    min_bpm: Annotated[
        float,
        typer.Option(metavar="BPM", help="Only music of at least this tempo.", min=0, max=1000, show_default=False),
    ] = 0.0,
    max_bpm: Annotated[
        float,
        typer.Option(metavar="BPM", help="Only music of at most this tempo.", min=0, max=1000, show_default=False),
    ] = 0.0,
    key: Annotated[
        str, typer.Option(metavar="KEY", help='Only music in this key, e.g. "A minor".', show_default=False)
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Only generations created since then: an age such as 2h, 3d or 1w, 2026-11-29, or 2026-11-29T18:30.",
            show_default=False,
        ),
    ] = "",
    until: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Only generations created until then; a date includes that whole day.",
            show_default=False,
        ),
    ] = "",
    limit: Limit = 20,
    ids: Annotated[bool, typer.Option("--ids", help="Print only the IDs, one per line.")] = False,
    as_json: AsJson = False,
) -> None:
    """List generations, newest first."""
    from dgx_music.storage.v1.storage_pb2 import ListGenerationsRequest
    from gateway.cli.commands import history

    if text and search:
        raise typer.BadParameter("give the text to search for once: as TEXT, or with --search")
    if ids and as_json:
        raise typer.BadParameter("--ids: cannot be combined with --json, whose objects contain the ids")
    created_after, created_before = history.parse_period(since, until)
    request = ListGenerationsRequest(
        states=[f"GENERATION_STATE_{name.upper()}" for name in state or ()],
        model_name=model,
        prompt_contains=text or search,
        min_rating=min_rating,
        client=client,
        min_bpm=min_bpm,
        max_bpm=max_bpm,
        key=key,
        created_after=created_after,
        created_before=created_before,
    )
    console = create_console(as_json)
    run(lambda session: history.history(session, console, request, limit=limit, ids_only=ids), console)


@app.command()
def show(
    generation_id: Id,
    png: Png = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file given by --png if it exists.")] = False,
    lineage: Annotated[
        bool,
        typer.Option("--lineage", help="Show what the generation was made from, and what was made from it, as a tree."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the details and the waveform of a generation, or its lineage."""
    from gateway.cli.commands import inspect

    if lineage:
        if png is not None:
            raise typer.BadParameter("--lineage: cannot be combined with --png")
        console = create_console(as_json)
        run(lambda session: inspect.show_lineage(session, console, generation_id), console)
    if png is not None:
        from gateway.cli.display import picture

        picture.require_drawable(png, overwrite=force)
    console = create_console(as_json)
    run(lambda session: inspect.show(session, console, generation_id, png=png), console, LIBRARY)


@app.command()
def rate(
    generation_id: Id,
    rating: Annotated[
        str, typer.Argument(metavar="RATING", help="1 to 5, or none to remove the rating.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Rate a generation from 1 to 5. `history` and `files export` select by --min-rating."""
    from gateway.cli.commands import inspect

    number = inspect.parse_rating(rating)
    console = create_console(as_json)
    run(lambda session: inspect.rate(session, console, generation_id, number), console)


@app.command()
def render(
    generation_id: Id,
    format_: FormatOption = None,
    bit_rate: BitRate = 0,
    quality: Quality = None,
    sample_rate: SampleRate = 0,
    channels: Channels = 0,
    loudness: Loudness = "",
    ceiling: Ceiling = None,
    title: Title = "",
    artist: Artist = "",
    album: Album = "",
    cover: Cover = None,
    output: Output = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Convert a finished generation to another format, sample rate or loudness. The loudness is kept by default."""
    from gateway.cli.commands.generation import render
    from gateway.cli.session.files import cover_file, output_files

    output_files.check_output(output, overwrite=force, as_json=as_json)
    console = create_console(as_json, output)
    options = render.build_output_options(
        format_,
        sample_rate,
        channels,
        loudness,
        ceiling,
        output,
        bit_rate_kbps=bit_rate,
        quality=quality,
        publication=render.build_publication(title, artist, album),
    )
    picture = cover_file.read_cover(cover, options.format if options else None)
    run(lambda session: render.render(session, console, generation_id, options, output, picture), console, LIBRARY)


@app.command()
def download(generation_id: Id, output: Output = None, force: Force = False, as_json: AsJson = False) -> None:
    """Save the audio file of a finished generation, in the current folder unless --output is given."""
    from gateway.cli.commands import inspect
    from gateway.cli.session.files import output_files

    output_files.check_output(output, overwrite=force, as_json=as_json)
    console = create_console(as_json)
    run(lambda session: inspect.save(session, console, generation_id, output, overwrite=force), console, LIBRARY)


@app.command()
def midi(
    generation_id: Id,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The MIDI file; - is standard output.", show_default=False),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Save the notes of a finished generation as a MIDI file, in the current folder unless --output is given."""
    from gateway.cli.commands import parts
    from gateway.cli.session.files import output_files

    output_files.check_output(output, overwrite=force, as_json=as_json)
    console = create_console(as_json)
    run(lambda session: parts.save_midi(session, console, generation_id, output, overwrite=force), console, ALL)


@app.command()
def stems(
    generation_id: Id,
    folder: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="Folder to save the files in; created if missing.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite stems that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Save the stems of a finished generation, such as drums and bass, as WAV files of 32-bit floats."""
    from gateway.cli.commands import files_export, parts

    console = create_console(as_json)
    target = files_export.create_folder(folder)
    run(lambda session: parts.save_stems(session, console, generation_id, target, overwrite=force), console, ALL)


@app.command()
def delete(generation_id: Id, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete a generation and its audio file."""
    from gateway.cli.commands import inspect

    if not yes:
        confirm(f"Delete generation {generation_id} and its audio file?")
    console = create_console(as_json)
    run(lambda session: inspect.delete(session, console, generation_id), console, LIBRARY)


@app.command()
def comparisons(
    generation_id: Annotated[
        str, typer.Argument(metavar="ID", help="Only comparisons of this generation.", show_default=False)
    ] = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List how takes were ranked in the Studio, newest first."""
    from gateway.cli.commands import comparisons

    console = create_console(as_json)
    run(lambda session: comparisons.comparisons(session, console, generation_id, limit=limit), console)


@app.command()
def stats(
    days: Annotated[int, typer.Option(metavar="N", min=1, max=366, help="Number of days to list, up to today.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Show statistics of all generations, by model and by day."""
    from gateway.cli.commands import stats

    console = create_console(as_json)
    run(lambda session: stats.statistics(session, console, days), console)


@app.command()
def prompts(
    limit: Limit = 20,
    recent: Annotated[bool, typer.Option("--recent", help="Sort by last use instead of by number of uses.")] = False,
    search: Search = "",
    as_json: AsJson = False,
) -> None:
    """List the prompts used so far, most used first."""
    from gateway.cli.commands import inspect

    console = create_console(as_json)
    run(lambda session: inspect.prompts(session, console, limit=limit, recent=recent, search=search), console)
