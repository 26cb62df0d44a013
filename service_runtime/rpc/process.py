"""Runs one service as a process of its own: `python -m export_service.rpc.server`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from dgx_music.config_file import ConfigFileError
from dgx_music.errors import ServiceError
from service_runtime.file_modes import limit_umask
from service_runtime.observability.logging import configure_logging
from service_runtime.observability.tracing import tracing
from service_runtime.rpc.server import serve_until_signalled
from service_runtime.rpc.service import Service
from service_runtime.settings import Settings, format_settings_error

ProcessSettings = TypeVar("ProcessSettings", bound=Settings)

FAILURE, BAD_SETTING = 1, 2
"""Exit statuses."""


def run_process(
    settings_type: type[ProcessSettings], address_setting: str, build: Callable[[ProcessSettings], Service]
) -> None:
    """Serves until SIGTERM, at the address that `listen` or else `address_setting` gives.

    Exits with one line on standard error if a setting is invalid (status 2) or the service cannot run (status 1).
    """
    limit_umask()
    try:
        settings = settings_type()
        configure_logging(settings.log_level, settings.log_format)
        address = settings.listen or getattr(settings, address_setting)
        with tracing():
            asyncio.run(serve_until_signalled([build(settings)], address, settings))
    except ValidationError as error:
        _exit(format_settings_error(error), BAD_SETTING)
    except ConfigFileError as error:
        _exit(str(error), BAD_SETTING)
    except ServiceError as error:
        _exit(error.message, FAILURE)


def _exit(message: str, status: int) -> None:
    print("error:", *message.split(), file=sys.stderr)
    sys.exit(status)
