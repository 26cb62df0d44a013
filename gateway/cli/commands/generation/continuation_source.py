"""--continue: continues from an earlier generation or clip, or from a local file, which is imported as a clip first."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from dgx_music.generation.v1.generation_pb2 import ListModelsRequest
from dgx_music.storage.v1.storage_pb2 import Continuation
from gateway.cli.display.clip_summary import format_clip
from gateway.cli.display.console import Console
from gateway.cli.session.clip_upload import upload_clip
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.runner import Session
from gateway.rpc.capability_support import require_capability
from gateway.timeouts import CALL_TIMEOUT_SECONDS
from service_runtime.capabilities import Capability


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
    if not file.exists() or file.is_dir():  # It may be a pipe.
        raise CommandError(f"--continue: {text} is neither a valid id nor an existing file", BAD_INPUT)
    return ContinuationSource(file, seconds or 0.0)


async def build_continuation(
    session: Session, console: Console, source: ContinuationSource, model_name: str
) -> Continuation:
    """Returns the source as the server knows it, after importing it if it is a file.

    Raises InvalidArgument if the model cannot continue audio, and CommandError if the file is not acceptable.
    """
    if isinstance(source.id_or_path, str):
        return Continuation(source_id=source.id_or_path, seconds=source.seconds)
    # Checked before the import, so that no clip is left behind that nothing continues from.
    models = (await session.music.ListModels(ListModelsRequest(), timeout=CALL_TIMEOUT_SECONDS)).models
    require_capability(model_name, Capability.CONTINUATION, "continuation", models)
    clip = await upload_clip(session, source.id_or_path, "--continue")
    console.print_notice(
        f"imported {source.id_or_path} ({format_clip(clip)}) as clip {clip.clip_id}; --continue accepts this id as well"
    )
    return Continuation(source_id=clip.clip_id, seconds=source.seconds)
