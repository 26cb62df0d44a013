"""--continue: continues from an earlier generation or clip, or from a local file, which is imported as a clip first."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from pathlib import Path

from dgx_music.export.v1.export_pb2 import ImportClipRequest, ImportClipResponse
from dgx_music.generation.v1.generation_pb2 import ListModelsRequest
from dgx_music.limits import MAX_CHUNK_BYTES
from dgx_music.storage.v1.storage_pb2 import Continuation
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.runner import Session
from gateway.rpc.continuation_support import require_continuation_support
from gateway.timeouts import CALL_TIMEOUT_SECONDS, STREAM_TIMEOUT_SECONDS
from service_runtime.rpc.client_stream import ClientStreamCall


@dataclass(frozen=True, slots=True)
class ContinuationSource:
    """The values of --continue and --continue-seconds."""

    id_or_path: str | Path
    """The UUID of a generation or clip, or the path of a file."""
    seconds: float
    """0 for the server's default."""


def parse_continuation_source(text: str, seconds: float | None) -> ContinuationSource | None:
    """Returns None if --continue is not given. Raises CommandError if it is neither a UUID nor an existing file."""
    if not text:
        if seconds is not None:
            raise CommandError("--continue-seconds: can only be used together with --continue", BAD_INPUT)
        return None
    try:
        return ContinuationSource(str(uuid.UUID(text)), seconds or 0.0)
    except ValueError:
        file = Path(text).expanduser()
    if not file.is_file():
        raise CommandError(f"--continue: {text} is neither a valid id nor an existing file", BAD_INPUT)
    return ContinuationSource(file, seconds or 0.0)


async def build_continuation(
    session: Session, console: Console, source: ContinuationSource, model_name: str
) -> Continuation:
    """Returns the source as the server knows it, after importing it if it is a file.

    Raises InvalidArgument if the model cannot continue audio, and what ImportClip raises.
    """
    if isinstance(source.id_or_path, str):
        return Continuation(source_id=source.id_or_path, seconds=source.seconds)
    # Checked before the import, so that no clip is left behind that nothing continues from.
    models = (await session.music.ListModels(ListModelsRequest(), timeout=CALL_TIMEOUT_SECONDS)).models
    require_continuation_support(model_name, models)
    clip = await _import_clip(session, source.id_or_path)
    console.print_notice(
        f"imported {source.id_or_path} ({clip.duration_seconds:g} s) as clip {clip.clip_id}; "
        "--continue accepts this id as well"
    )
    return Continuation(source_id=clip.clip_id, seconds=source.seconds)


async def _import_clip(session: Session, path: Path) -> ImportClipResponse:
    call = ClientStreamCall(session.music.ImportClip, STREAM_TIMEOUT_SECONDS)
    try:
        with open(path, "rb") as file:  # noqa: ASYNC230  # It is read in a thread.
            while data := await asyncio.to_thread(file.read, MAX_CHUNK_BYTES):
                await call.write(ImportClipRequest(data=data))
        return await call.finish()
    except OSError as error:
        raise CommandError(f"--continue: failed to read {path}: {error.strerror or error}", BAD_INPUT) from error
    finally:
        call.cancel()
