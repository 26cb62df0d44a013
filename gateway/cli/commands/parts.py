"""The commands that save the parts of finished music: its notes as a MIDI file, and its stems."""

from __future__ import annotations

from pathlib import Path

from dgx_music.client.stem_files import Stems
from dgx_music.client.stem_files import save_stems as save_stem_files
from dgx_music.errors import DataLoss
from dgx_music.generation.v1.generation_pb2 import (
    PART_ORIGIN_ESTIMATED,
    GetMidiRequest,
    PartOrigin,
    StreamStemsRequest,
)
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.files.output_files import require_writable
from gateway.cli.session.runner import Session
from gateway.cli.session.standard_streams import STANDARD_OUTPUT, write_audio
from gateway.file_replacement import replacing
from gateway.timeouts import RENDER_TIMEOUT_SECONDS, STREAM_TIMEOUT_SECONDS

ESTIMATED_NOTICE = "estimated from the audio, because the model does not know its parts"


async def save_midi(
    session: Session, console: Console, generation_id: str, output: Path | None, *, overwrite: bool
) -> int:
    """Saves the notes of a generation as `output`, by default as `<id>.mid` here, and prints the path."""
    request = GetMidiRequest(generation_id=generation_id)
    response = await session.music.GetMidi(request, timeout=RENDER_TIMEOUT_SECONDS)
    if output == STANDARD_OUTPUT:
        await write_audio(response.midi)
        return 0
    path = output or Path(f"{generation_id.lower()}.mid")
    require_writable([path], overwrite=overwrite)
    try:
        with replacing(path) as part:
            part.write_bytes(response.midi)  # A few kilobytes.
    except OSError as error:
        raise CommandError(f"failed to write {path}: {error.strerror or error}") from error
    path = path.absolute()
    if console.as_json:
        origin = PartOrigin.Name(response.origin).removeprefix("PART_ORIGIN_")
        console.print_object({"generation_id": generation_id, "path": str(path), "origin": origin})
        return 0
    console.print_line(str(path))
    if response.origin == PART_ORIGIN_ESTIMATED:
        console.print_notice(f"the notes are {ESTIMATED_NOTICE}")
    return 0


async def save_stems(session: Session, console: Console, generation_id: str, folder: Path, *, overwrite: bool) -> int:
    """Saves the stems of a generation in a folder, and prints the path of each."""
    stems = await _fetch(session, generation_id, folder, overwrite=overwrite)
    origin = PartOrigin.Name(stems.header.origin).removeprefix("PART_ORIGIN_")
    for name, path in stems.paths.items():
        if console.as_json:
            fields = {"generation_id": generation_id, "stem": name, "path": str(path.absolute()), "origin": origin}
            console.print_object({**fields, "file_gain_db": round(stems.header.file_gain_db, 2)})
        else:
            console.print_line(str(path.absolute()))
    if stems.header.origin == PART_ORIGIN_ESTIMATED and not console.as_json:
        console.print_notice(f"the stems are {ESTIMATED_NOTICE}")
    return 0


async def _fetch(session: Session, generation_id: str, folder: Path, *, overwrite: bool) -> Stems:
    call = session.music.StreamStems(StreamStemsRequest(generation_id=generation_id), timeout=STREAM_TIMEOUT_SECONDS)
    try:
        return await save_stem_files(aiter(call), folder, overwrite=overwrite)
    except FileExistsError as error:
        raise CommandError(f"--to: {error} already exists; use --force to overwrite it", BAD_INPUT) from error
    except DataLoss as error:
        raise CommandError(error.message) from error
    except OSError as error:
        raise CommandError(f"failed to write to {folder}: {error.strerror or error}") from error
    finally:
        call.cancel()
