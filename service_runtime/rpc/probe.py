"""Health probe for containers: `python -m service_runtime.rpc.probe HOST:PORT`.

Exits with 0 if all services of the server are SERVING, else with 1 and the reason on standard error. It uses the same
settings as other clients: DGX_MUSIC_TLS_CA for a server with TLS, and for one that requires tokens DGX_MUSIC_TOKEN, or
else the service token.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys

import grpc.aio
from pydantic import ValidationError

from dgx_music.channel import connect
from dgx_music.credentials import NO_CREDENTIALS, Credentials
from dgx_music.error_status import status_of
from dgx_music.errors import ServiceError, Unavailable
from service_runtime.access.service_token import ServiceToken
from service_runtime.rpc.connection_diagnosis import explain_unreachable
from service_runtime.rpc.health.health_check import require_serving
from service_runtime.settings import Settings, format_settings_error


async def probe(address: str, credentials: Credentials = NO_CREDENTIALS) -> str | None:
    """Returns what is wrong with the server at `address`, or None if all of its services are SERVING."""
    try:
        async with connect(address, credentials) as channel:
            await require_serving(channel, address)
    except (Unavailable, ValueError) as error:
        if isinstance(error, Unavailable) and _was_answered(error):
            return error.message
        return await explain_unreachable(address, credentials)
    return None


def _was_answered(error: Unavailable) -> bool:
    """Returns whether the server itself has said what is wrong: it is not SERVING, or it refuses the call."""
    return not isinstance(error.__cause__, grpc.aio.AioRpcError) or status_of(error.__cause__) is not None


def probe_credentials(settings: Settings) -> Credentials:
    """Returns what the probe shows. Raises FailedPrecondition, which names the setting, if it can't be used."""
    credentials = settings.credentials()
    if credentials.metadata() or not (service_tokens := ServiceToken(settings).accepted()):
        return credentials
    return dataclasses.replace(credentials, token=service_tokens[0])


def main() -> None:
    """Runs the command."""
    if len(sys.argv) != 2:
        print("usage: python -m service_runtime.rpc.probe HOST:PORT, or unix:PATH", file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(asyncio.run(probe(sys.argv[1], probe_credentials(Settings()))))
    except ValidationError as error:
        sys.exit(format_settings_error(error))
    except ServiceError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
