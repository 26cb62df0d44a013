"""`dgx-music session export`: saves takes as a session for DAWs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.cli.commands.files_export import create_folder
from gateway.cli.commands.sessions.export_progress import show_progress
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.runner import Session
from gateway.daw.session_export import SessionFormat, SessionOptions, export_session
from gateway.daw.take_layout import Placement

PLACES = {Placement.LAYERS: "beginning together", Placement.SEQUENCE: "one after the other"}


def build_options(
    name: str,
    formats: Sequence[str],
    sample_rate_hz: int,
    placement: str | None,
    *,
    with_stems: bool,
    with_midi: bool,
    quantizes_tempo: bool,
    overwrites: bool,
) -> SessionOptions:
    """Returns the options, checked before anything is exported."""
    options = SessionOptions(
        name=name,
        formats=tuple(SessionFormat(one) for one in dict.fromkeys(formats)),
        sample_rate_hz=sample_rate_hz,
        placement=Placement(placement) if placement else None,
        with_stems=with_stems,
        with_midi=with_midi,
        quantizes_tempo=quantizes_tempo,
        overwrites=overwrites,
    )
    options.check()
    return options


async def export(
    session: Session, console: Console, generation_ids: Sequence[str], folder: Path, options: SessionOptions
) -> int:
    """Exports the session and prints the path of the file for each DAW. Returns 0."""
    try:
        with _created(folder) as target, show_progress(console) as report:
            exported = await export_session(session.music, generation_ids, target, options, report)
    except OSError as error:
        raise CommandError(f"failed to write to {folder}: {error.strerror or error}") from error
    for notice in exported.notices:
        console.print_notice(notice)
    written = exported.session
    if console.as_json:
        console.print_object({
            "files": [str(path) for path in exported.files],
            "placement": exported.placement.value,
            "sample_rate_hz": written.sample_rate_hz,
            "seconds": round(written.seconds, 6),
            "tempo": [{"seconds": round(one.seconds, 6), "bpm": one.bpm} for one in written.tempo_map.tempi],
            "tracks": [track.name for track in written.tracks],
            "markers": [{"seconds": round(one.seconds, 6), "name": one.name} for one in written.markers],
        })  # fmt: skip
        return 0
    for path in exported.files:
        console.print_line(str(path))
    takes = sum(not track.is_part for track in written.tracks)
    parts = len(written.tracks) - takes
    places = f", {PLACES[exported.placement]}" if takes > 1 else ""
    console.print_notice(
        f"{takes} take{'s' * (takes != 1)}{places}, {parts} track{'s' * (parts != 1)} of stems and notes, "
        f"{len(written.markers)} marker{'s' * (len(written.markers) != 1)}, "
        f"{written.tempo_map.tempi[0].bpm:.4g} BPM"
    )
    return 0


@contextmanager
def _created(folder: Path) -> Iterator[Path]:
    """Yields the folder, created if it is missing. After an error, a new one that is still empty is removed."""
    is_new = not folder.exists()
    target = create_folder(folder)
    try:
        yield target
    except BaseException:
        if is_new:
            with suppress(OSError):  # It is not empty.
                target.rmdir()
        raise
