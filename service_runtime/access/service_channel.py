"""Channels from one service to another."""

from __future__ import annotations

import grpc.aio

from dgx_music.channel import connect
from service_runtime.access.service_token import service_metadata
from service_runtime.settings import Settings


def connect_service(address: str, settings: Settings) -> grpc.aio.Channel:
    """Returns a channel whose calls prove to be a service's, and name the client for which they are made.

    A service token or certificates that are renewed in their files are used from then on. Raises FailedPrecondition,
    which names the setting, if a file can't be used.
    """
    return connect(address, settings.service_credentials(), service_metadata(settings))
