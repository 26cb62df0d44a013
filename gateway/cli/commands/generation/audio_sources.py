"""--continue, --melody and --style: a generation, a clip, or a local file, which is imported as a clip first."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

from dgx_music.generation.v1.generation_pb2 import ListModelsRequest
from gateway.cli.display.clip_summary import format_clip
from gateway.cli.display.console import Console
from gateway.cli.session.clip_upload import upload_clip
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.runner import Session
from gateway.rpc.capability_support import require_capability
from gateway.timeouts import CALL_TIMEOUT_SECONDS
from service_runtime.capabilities import Capability

USES = {
    "--continue": ("continuation", Capability.CONTINUATION),
    "--melody": ("conditioning.melody", Capability.MELODY),
    "--style": ("conditioning.style", Capability.STYLE),
    "ID": ("edit", Capability.CONTINUATION),
}
"""Argument that names a source → the field of the request that it sets, and what that needs."""

AudioSources = Mapping[str, "str | Path"]
"""Argument → the UUID of a generation or clip, or the path of a file."""


def parse_source(option: str, text: str) -> str | Path:
    """Returns the UUID or the path. Raises CommandError if it is neither a UUID nor an existing file."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        file = Path(text).expanduser()
    if not file.exists() or file.is_dir():  # It may be a pipe.
        raise CommandError(f"{option}: {text} is neither a valid id nor an existing file", BAD_INPUT)
    return file


async def import_sources(session: Session, console: Console, sources: AudioSources, model_name: str) -> dict[str, str]:
    """Returns the ids of the sources as the server knows them, after importing those that are files.

    Raises InvalidArgument if the model cannot use one of them, and CommandError if a file is not acceptable.
    """
    files = {option: source for option, source in sources.items() if isinstance(source, Path)}
    ids = {option: source for option, source in sources.items() if isinstance(source, str)}
    if files:
        # Checked before the import, so that no clip is left behind that nothing uses.
        models = (await session.music.ListModels(ListModelsRequest(), timeout=CALL_TIMEOUT_SECONDS)).models
        for option in files:
            field, capability = USES[option]
            require_capability(model_name, capability, field, models)
    for option, file in files.items():
        clip = await upload_clip(session, file, option)
        console.print_notice(
            f"imported {file} ({format_clip(clip)}) as clip {clip.clip_id}; {option} accepts this id as well"
        )
        ids[option] = clip.clip_id
    return ids
