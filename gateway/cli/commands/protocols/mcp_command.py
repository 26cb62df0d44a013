"""`dgx-music mcp`: serves the Model Context Protocol on standard input and output."""

from __future__ import annotations

from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.runner import Session
from service_runtime.optional_deps import install_extra_command


def require_extra() -> None:
    """Raises CommandError if the extra is not installed."""
    try:
        import mcp  # noqa: F401
    except ImportError as error:
        raise CommandError(f"`dgx-music mcp` needs the extra mcp; run {install_extra_command('mcp')}") from error


async def serve(session: Session) -> int:
    """Serves until standard input ends."""
    from dgx_music.client.async_client import AsyncClient
    from gateway.mcp.server import build_server, run_on_standard_streams

    async with AsyncClient(session.address) as client:
        await run_on_standard_streams(build_server(client, session.locate))
    return 0
