"""Uploads a local audio file, which the server stores as a clip."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc.aio

from dgx_music.error_status import read_error_details
from dgx_music.export.v1.export_pb2 import ImportClipRequest, ImportClipResponse
from dgx_music.limits import MAX_CHUNK_BYTES
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.runner import Session
from gateway.timeouts import STREAM_TIMEOUT_SECONDS
from service_runtime.rpc.client_stream import ClientStreamCall


async def upload_clip(session: Session, path: Path, argument: str) -> ImportClipResponse:
    """Raises CommandError, which names `argument`, if the file cannot be read or is not acceptable."""
    call = ClientStreamCall(session.music.ImportClip, STREAM_TIMEOUT_SECONDS)
    try:
        with open(path, "rb") as file:  # noqa: ASYNC230  # It is read in a thread.
            while data := await asyncio.to_thread(file.read, MAX_CHUNK_BYTES):
                await call.write(ImportClipRequest(data=data))
        return await call.finish()
    except OSError as error:
        raise CommandError(f"{argument}: failed to read {path}: {error.strerror or error}", BAD_INPUT) from error
    except grpc.aio.AioRpcError as error:
        problem = read_error_details(error).violations.get("data")
        if problem is None:
            raise
        raise CommandError(f"{argument}: {path} {problem}", BAD_INPUT) from error
    finally:
        call.cancel()
