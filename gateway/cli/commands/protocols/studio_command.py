"""`dgx-music studio`: serves the page to generate, listen and compare, until it is stopped."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.commands.protocols.page_opener import open_page
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.runner import Session
from service_runtime.observability.logging import configure_logging
from service_runtime.optional_deps import install_extra_command
from service_runtime.rpc.binding import is_local

if TYPE_CHECKING:
    from gateway.cli.display.console import Console
    from gateway.studio.config import StudioSettings


def resolve_settings(data_dir: Path | None, listen: str | None) -> StudioSettings:
    """Returns the settings; `listen` precedes that in the environment. Raises CommandError without the extra."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise CommandError(
            f"`dgx-music studio` needs the extra studio; run {install_extra_command('studio')}"
        ) from error
    from gateway.studio.config import StudioSettings

    given = {"data_dir": data_dir, "studio_listen": listen}
    return StudioSettings.model_validate({name: value for name, value in given.items() if value is not None})


async def serve(session: Session, settings: StudioSettings, console: Console, opens_browser: bool) -> int:
    """Serves until the command is interrupted, and then lets running requests finish."""
    from gateway.studio.server import serve_studio

    # Somebody sits at this terminal, who wants the address of the page and what goes wrong.
    configure_logging(
        settings.log_level if "log_level" in settings.model_fields_set else "warning",
        settings.log_format if "log_format" in settings.model_fields_set else "console",
    )
    try:
        async with serve_studio(session.address, settings) as bound_url:
            url = _url_for_people(bound_url)
            console.print_notice(f"the Studio is at {url}; Ctrl-C ends it")
            if opens_browser and not await asyncio.to_thread(open_page, url) and is_local(settings.studio_listen):
                port = url.rpartition(":")[2]
                console.print_notice(
                    f"this machine has no desktop; on yours, run `ssh -L {port}:127.0.0.1:{port} "
                    f"{socket.gethostname()}` and open http://127.0.0.1:{port}"
                )
            await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        # A signal has ended it, which is how it is meant to end.
        if session.is_embedded:
            console.print_notice("stopping; takes that are being generated go on at the next start")
        return 0
    return 0


def _url_for_people(url: str) -> str:
    """Returns the URL with the machine's name in place of "all addresses"."""
    for everywhere in ("//0.0.0.0:", "//[::]:", "//:"):
        url = url.replace(everywhere, f"//{socket.gethostname()}:")
    return url
