"""`dgx-music http`: serves the HTTP endpoints until it is stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.runner import Session
from service_runtime.observability.logging import configure_logging
from service_runtime.optional_deps import install_extra_command

if TYPE_CHECKING:
    from gateway.http.config import HttpSettings


def resolve_settings(data_dir: Path | None, listen: str | None) -> HttpSettings:
    """Returns the settings; `listen` precedes that in the environment. Raises CommandError without the extra."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise CommandError(f"`dgx-music http` needs the extra http; run {install_extra_command('http')}") from error
    from gateway.http.config import HttpSettings

    given = {"data_dir": data_dir, "http_listen": listen}
    return HttpSettings.model_validate({name: value for name, value in given.items() if value is not None})


async def serve(session: Session, settings: HttpSettings) -> int:
    """Serves until the command is interrupted, and then lets running requests finish."""
    from gateway.http.server import serve_http

    configure_logging(settings.log_level, settings.log_format)
    try:
        async with serve_http(session.address, settings):
            await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        return 0  # A signal has ended it, which is how it is meant to end.
    return 0
