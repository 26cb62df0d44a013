"""Builds and runs the export service."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

import grpc.aio

from dgx_music.errors import ServiceError, Unavailable
from dgx_music.export.v1 import export_pb2_grpc
from export_service.config import ExportSettings
from export_service.dsp.loudness import warm_up
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.provenance import create_signer
from export_service.library.audio_library import Libraries
from export_service.library.file_locks import FileLocks
from export_service.library.local_libraries import local_libraries
from export_service.pipeline.clip_import import ClipLimits
from export_service.pipeline.export_manager import ExportManager
from export_service.pipeline.recording_registry import SpoolRetention
from export_service.pipeline.renderer import Renderer
from export_service.pipeline.tag_editor import TagEditor
from export_service.rpc.servicer import ExportServicer
from service_runtime.file_modes import GROUP_READABLE, PRIVATE, FileModes
from service_runtime.rpc.process import run_process
from service_runtime.rpc.service import Service


class ExportServer:
    """The export service, as `service_runtime.rpc.server` runs it."""

    full_name = "dgx_music.export.v1.ExportService"

    def __init__(self, settings: ExportSettings) -> None:
        locks, modes = FileLocks(), GROUP_READABLE if settings.group_readable else PRIVATE
        self._manager = ExportManager(
            settings.data_dir,
            SpoolRetention(settings.spool_keep_seconds, settings.failed_spool_keep_seconds),
            ClipLimits(settings.max_clip_bytes, settings.max_clip_seconds),
            modes,
            libraries=_open_libraries(settings, modes, locks),
            locks=locks,
        )
        self._signer = create_signer(settings.c2pa_certificate, settings.c2pa_private_key)
        self._renderer = Renderer(self._manager.library, self._signer, self._manager.locks)
        self._editor = TagEditor(self._manager.library, self._manager.locks, self._signer)
        self._servicer = ExportServicer(
            self._manager,
            self._renderer,
            self._editor,
            LoudnessTarget(settings.target_lufs, settings.ceiling_dbtp),
            generator=f"dgx-music {version('dgx-music')}",
            signer=self._signer,
            advertised_address=settings.export_advertised_address,
        )
        self._warm_up_task: asyncio.Task[None] | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Implements `service_runtime.rpc.service.Service`, as do the methods below."""
        export_pb2_grpc.add_ExportServiceServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        await self._manager.start()
        # Importing the filters takes half a second. Done in the background, it delays neither the start nor an export.
        self._warm_up_task = asyncio.create_task(asyncio.to_thread(warm_up))

    async def check(self) -> None:
        try:
            await self._manager.check()
        except asyncio.CancelledError:  # It has taken too long.
            self._servicer.problem = Unavailable("the library does not answer", reason="LIBRARY_UNAVAILABLE")
            raise
        except ServiceError as error:
            self._servicer.problem = error
            raise
        self._servicer.problem = None

    async def drain(self) -> None:
        self._manager.drain()
        self._renderer.drain()

    async def stop(self) -> None:
        if self._warm_up_task is not None:
            await self._warm_up_task
        await self._renderer.stop()
        await self._editor.stop()
        await self._manager.stop()


def _open_libraries(settings: ExportSettings, modes: FileModes, locks: FileLocks) -> Libraries:
    if not settings.library_url:
        return local_libraries(settings.data_dir, modes)
    from export_service.objects.bucket import Bucket
    from export_service.objects.object_libraries import object_libraries

    bucket = Bucket(settings.library_url, settings.library_public_endpoint)
    return object_libraries(settings.data_dir, bucket, settings.library_cache_bytes, locks.is_in_use)


def build(settings: ExportSettings) -> Service:
    """Returns the export service, ready to be served."""
    return ExportServer(settings)


def main() -> None:
    """Serves until SIGTERM."""
    run_process(ExportSettings, "export_address", build)


if __name__ == "__main__":
    main()
