"""Going on from an earlier generation, or from a file that is taken in as a clip first."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from pathlib import Path

from dgx_music.export.v1.export_pb2 import ImportClipRequest, ImportClipResponse
from dgx_music.generation.v1.generation_pb2 import ListModelsRequest
from dgx_music.storage.v1.storage_pb2 import Continuation
from gateway.cli.display.console import Screen
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.runner import CALL_SECONDS, STREAM_SECONDS, Session
from gateway.rpc.continuation_support import require_continuation_support
from service_runtime.rpc.client_stream import ClientStreamCall

PIECE_BYTES = 65_536
"""Most that ImportClip takes in one message."""


@dataclass(frozen=True, slots=True)
class Source:
    """What --continue and --continue-seconds say."""

    place: str | Path
    """An id (UUID), or a file."""
    seconds: float
    """0: the server's default."""


def which_source(text: str, seconds: float | None) -> Source | None:
    """None where --continue is not given. Raises CommandError where it is neither an id nor a file that is there."""
    if not text:
        if seconds is not None:
            raise CommandError("--continue-seconds: goes with --continue only", BAD_INPUT)
        return None
    try:
        return Source(str(uuid.UUID(text)), seconds or 0.0)
    except ValueError:
        file = Path(text).expanduser()
    if not file.is_file():
        raise CommandError(f"--continue: {text} is neither an id nor a file that is there", BAD_INPUT)
    return Source(file, seconds or 0.0)


async def continuation_of(session: Session, screen: Screen, source: Source, model_name: str) -> Continuation:
    """What the server is to go on from; a file is sent to it. Raises as `explain` explains."""
    if isinstance(source.place, str):
        return Continuation(source_id=source.place, seconds=source.seconds)
    # Asked before, so that no clip is left that nothing goes on from.
    models = (await session.music.ListModels(ListModelsRequest(), timeout=CALL_SECONDS)).models
    require_continuation_support(model_name, models)
    clip = await _import(session, source.place)
    screen.notice(f"clip {clip.clip_id}: {source.place}, {clip.duration_seconds:g} s; --continue takes its id too")
    return Continuation(source_id=clip.clip_id, seconds=source.seconds)


async def _import(session: Session, file: Path) -> ImportClipResponse:
    sending = ClientStreamCall(session.music.ImportClip, STREAM_SECONDS)
    try:
        with open(file, "rb") as opened:  # noqa: ASYNC230  # Its reads go to a thread.
            while data := await asyncio.to_thread(opened.read, PIECE_BYTES):
                await sending.write(ImportClipRequest(data=data))
        return await sending.finish()
    except OSError as error:
        raise CommandError(f"--continue: can't read {file}: {error.strerror or error}", BAD_INPUT) from error
    finally:
        sending.cancel()
