"""The subcommands `dgx-music files …`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.options import (
    DEFAULT_NAME,
    AsJson,
    GlobalOptions,
    Id,
    Limit,
    MinRating,
    Search,
    Yes,
    confirm,
    create_console,
    run,
)
from gateway.embedded.service_set import LIBRARY

app = typer.Typer(
    help="Import, list, export, tag, verify and clean up audio files: finished ones, renders of them, and clips."
)


class Kind(StrEnum):
    """The kind of a file, as the value of --kind."""

    OUTPUT = "output"
    CLIP = "clip"
    RENDER = "render"


Kinds = Annotated[
    list[Kind] | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help="Only files of this kind: output, clip or render. May be given more than once.",
        show_default=False,
    ),
]


@app.command(name="list")
def list_(limit: Limit = 20, kind: Kinds = None, as_json: AsJson = False) -> None:
    """List files: finished generations by day, newest first, then clips, then renders."""
    from gateway.cli.commands import files

    console = create_console(as_json)
    kinds = files.parse_kinds(kind)
    run(lambda session: files.list_files(session, console, limit=limit, kinds=kinds), console, LIBRARY)


@app.command(name="import")
def import_(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Local audio files.", exists=True, dir_okay=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Import audio files as clips, and show their loudness, tempo and key. `generate --continue ID` continues them.

    Reads WAV, RF64, W64, AIFF, CAF, AU, FLAC, MP3, Ogg and Opus; others, such as M4A, with the extra `m4a`.
    Surround sound is mixed down to stereo.
    """
    from gateway.cli.commands import files

    console = create_console(as_json)
    run(lambda session: files.import_clips(session, console, paths), console, LIBRARY)


@app.command()
def url(
    file_id: Annotated[
        str, typer.Argument(metavar="ID", help="ID of the generation or clip (a UUID).", show_default=False)
    ],
    render_id: Annotated[
        str, typer.Option("--render", metavar="ID", help="A render of the generation.", show_default=False)
    ] = "",
    expires: Annotated[
        str, typer.Option(metavar="DURATION", help="How long it is valid, e.g. 30m, 12h or 2d; at most 7d.")
    ] = "1h",
    as_json: AsJson = False,
) -> None:
    """Show a URL from which anybody can download a file until it expires. The library must be in object storage."""
    from gateway.cli.commands import files

    console = create_console(as_json)
    run(lambda session: files.show_url(session, console, file_id, render_id, expires), console, LIBRARY)


@app.command(name="upload-to")
def upload_to(
    url: Annotated[str, typer.Argument(metavar="URL", help="The bucket, as s3://bucket or s3://bucket/prefix.")],
    as_json: AsJson = False,
) -> None:
    """Copy all files of the data directory into object storage, and record that they are there. No server may run.

    Can be repeated: files that are there already are not uploaded again.
    """
    from gateway.cli.commands.database import library_upload

    library_upload.upload_library(GlobalOptions.data_dir, url).print(create_console(as_json))


@app.command()
def export(
    folder: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="Folder to save the files in; created if missing.")
    ],
    generation_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Generations to export.", show_default=False),
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            "--name",
            metavar="TEMPLATE",
            help="Names of the files, as for Python's str.format, e.g. {prompt:.40} or {date:%Y%m%d}. Fields: date, "
            "time, prompt, bpm, key, genre, seed, model, duration, rating, id.",
        ),
    ] = DEFAULT_NAME,
    all_: Annotated[bool, typer.Option("--all", help="Export all finished generations.")] = False,
    min_rating: MinRating = 0,
    search: Search = "",
    as_json: AsJson = False,
) -> None:
    """Save copies of finished files under readable names. Choose them by ID, --all, --min-rating or --search.

    Never overwrites: a name that is taken gets a number, unless that file has the same content already.
    Prints the path of each file. If one can't be exported, the others are, and the exit status is 1.
    """
    from gateway.cli.commands import files_export
    from gateway.cli.session.files.name_template import NameTemplate

    has_filter = bool(all_ or min_rating or search)
    if bool(generation_ids) == has_filter:
        raise typer.BadParameter("choose what to export, either by ID or with --all, --min-rating or --search")
    selection = files_export.Selection(generation_ids or (), min_rating, search)
    selection.check()
    template = NameTemplate(name, "--name")
    console = create_console(as_json)
    target = files_export.create_folder(folder)
    run(lambda session: files_export.export_files(session, console, selection, target, template), console, LIBRARY)


@app.command()
def stats(as_json: AsJson = False) -> None:
    """Show the number and size of the files, and the free disk space."""
    from gateway.cli.commands import files

    console = create_console(as_json)
    run(lambda session: files.statistics(session, console), console, LIBRARY)


@app.command()
def verify(
    generation_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Generations to verify. Default: all.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only check that the files exist.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare finished files and renders with the SHA-256 recorded when they were written.

    Prints one line per file that is changed, missing or unreadable. The exit status is 1 if there are any.
    """
    from gateway.cli.commands import files

    console = create_console(as_json)
    run(lambda session: files.verify(session, console, generation_ids or [], quick=quick), console, LIBRARY)


@app.command()
def tag(
    generation_id: Id,
    render: Annotated[
        str, typer.Option("--render", metavar="ID", help="Edit only this render of it.", show_default=False)
    ] = "",
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Title.", show_default=False)] = None,
    artist: Annotated[str | None, typer.Option(metavar="TEXT", help="Artist.", show_default=False)] = None,
    album: Annotated[str | None, typer.Option(metavar="TEXT", help="Album.", show_default=False)] = None,
    genre: Annotated[str | None, typer.Option(metavar="TEXT", help="Genre.", show_default=False)] = None,
    cover: Annotated[
        Path | None,
        typer.Option(metavar="IMAGE", help="Cover picture: a PNG or JPEG file of at most 3 MiB.", show_default=False),
    ] = None,
    no_cover: Annotated[bool, typer.Option("--no-cover", help="Remove the cover.")] = False,
    as_json: AsJson = False,
) -> None:
    """Edit the tags of a finished file without changing its audio. An empty text (--title "") restores the default.

    Its renders are edited with it, except for tags that were set for one of them alone.
    """
    from gateway.cli.commands import files

    if (title, artist, album, genre, cover) == (None,) * 5 and not no_cover:
        raise typer.BadParameter("choose what to edit with --title, --artist, --album, --genre, --cover or --no-cover")
    if cover is not None and no_cover:
        raise typer.BadParameter("--cover and --no-cover exclude each other")
    console = create_console(as_json)
    texts = {"title": title, "artist": artist, "album": album, "genre": genre}
    request = files.tag_request(generation_id, render, texts, cover, removes_cover=no_cover)
    run(lambda session: files.tag(session, console, request), console, LIBRARY)


@app.command()
def cleanup(
    older_than: Annotated[
        str,
        typer.Option(
            metavar="AGE",
            help="Delete files older than this: 30d, 12h or 2w. Clips and renders: not used for this long.",
            show_default=False,
        ),
    ] = "",
    keep: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="Delete the oldest files until the rest fits in this size, e.g. 50GB.",
            show_default=False,
        ),
    ] = "",
    orphans: Annotated[
        bool,
        typer.Option("--orphans", help="Delete files that belong to no generation, or to one that was cancelled."),
    ] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Delete generations whose file is missing.")] = False,
    kind: Kinds = None,
    yes: Annotated[
        bool,
        typer.Option("--yes/--dry-run", help="Actually delete. Without this flag, only report what would be deleted."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old, excess, orphaned or missing files. Deleting a finished file also deletes its generation.

    Files that are being written, played or continued from are kept.
    """
    from gateway.cli.commands import files

    if not (older_than or keep or orphans or missing):
        raise typer.BadParameter("choose what to delete with --older-than, --keep, --orphans or --missing")
    console = create_console(as_json)
    request = files.cleanup_request(
        older_than, keep, orphans=orphans, missing=missing, kinds=files.parse_kinds(kind), dry_run=not yes
    )
    run(lambda session: files.cleanup(session, console, request), console, LIBRARY)


@app.command()
def delete(
    clip_id: Annotated[str, typer.Argument(metavar="ID", help="ID of the clip (a UUID).", show_default=False)],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete an uploaded clip."""
    from gateway.cli.commands import files

    if not yes:
        confirm(f"Delete clip {clip_id}?")
    console = create_console(as_json)
    run(lambda session: files.delete_clip(session, console, clip_id), console, LIBRARY)
