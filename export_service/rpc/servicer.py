"""The servicer: proto in, domain call, proto out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio
import structlog

from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from dgx_music.pcm import PcmWriter
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.provenance import Signer
from export_service.library.cleanup import Cleanup
from export_service.library.filesystem import disk_errors
from export_service.library.inventory import contents
from export_service.library.library_statistics import statistics
from export_service.library.verification import verify
from export_service.library.waveform import waveform
from export_service.pipeline.export_manager import Exporter
from export_service.pipeline.export_session import Finish, Landed, Session
from export_service.pipeline.renderer import Renderer
from export_service.rpc import converters, library_converters
from export_service.rpc.upload_stream import Upload, file_data
from export_service.streaming.audio_stream import FinalAudio, LiveAudio
from export_service.streaming.converted_audio import converted
from export_service.streaming.download import download
from export_service.threads import on_thread
from service_runtime.observability.logging import get_logger
from service_runtime.rpc.output_converters import output_options_from_proto
from service_runtime.rpc.paging import Page

log = get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class ExportServicer(export_pb2_grpc.ExportServiceServicer):
    """dgx_music.export.v1.ExportService."""

    def __init__(
        self, exporter: Exporter, renderer: Renderer, aim: LoudnessTarget, generator: str, signer: Signer | None
    ) -> None:
        self._exporter, self._renderer, self._cleanup = exporter, renderer, Cleanup(exporter)
        self._aim, self._generator, self._signer = aim, generator, signer

    async def Export(
        self, request_iterator: AsyncIterator[export_pb2.ExportRequest], context: Context
    ) -> export_pb2.ExportResponse:
        upload = Upload(request_iterator)
        header = await upload.header()
        take = converters.to_take(header.audio, "header.audio")
        options = output_options_from_proto(header.output, "header.output")
        tags = converters.to_tags(header.tags, "header.tags")
        tempo_hint_bpm = converters.to_tempo_hint(header.tempo_hint_bpm, "header.tempo_hint_bpm")
        finish = Finish(options, tags, self._aim, self._generator, tempo_hint_bpm, self._signer)
        with structlog.contextvars.bound_contextvars(generation_id=take.generation_id, attempt=take.attempt):
            async with self._exporter.session(take, finish) as session:
                landed = await session.unless_broken_off(_receive(upload, session))
            path = self._exporter.library.relative(landed.path)
            finished = landed.finished
            log.info("exported", file_path=path, frames=finished.frames, gain_db=finished.normalization.gain_db)
            return converters.from_finished(finished, path, upload.sha256, landed.analysis)

    async def Render(self, request: export_pb2.RenderRequest, context: Context) -> export_pb2.RenderResponse:
        generation_id = converters.to_generation_id(request.generation_id)
        options = output_options_from_proto(request.output, "output")
        as_it_is = LoudnessTarget(None, self._aim.ceiling_dbtp)
        with self._exporter.usage.reading(generation_id):
            render = await self._renderer.render(generation_id, options, as_it_is)
        path = self._exporter.library.relative(render.path)
        return export_pb2.RenderResponse(
            render_id=render.render_id, file=converters.from_finished(render.finished, path)
        )

    async def ImportClip(
        self, request_iterator: AsyncIterator[export_pb2.ImportClipRequest], context: Context
    ) -> export_pb2.ImportClipResponse:
        async with aclosing(file_data(request_iterator)) as data:
            clip = await self._exporter.import_clip(data)
        log.info("imported", clip_id=clip.clip_id, frames=clip.frames, sample_rate_hz=clip.sample_rate_hz)
        return converters.from_clip(clip)

    async def StreamAudio(
        self, request: export_pb2.StreamAudioRequest, context: Context
    ) -> AsyncIterator[export_pb2.StreamAudioResponse]:
        start_frame = converters.to_start(request.start_frame, "start_frame")
        conversion = converters.to_conversion(request)
        generation_id = converters.to_generation_id(request.generation_id)
        level = converters.to_level(request.level, "level")
        wait_seconds = converters.to_wait_seconds(request.wait_seconds)
        render_id = converters.to_render_id(request.render_id, level)
        found: LiveAudio | FinalAudio
        with self._exporter.usage.reading(generation_id, render_id):
            if render_id:
                found = await self._exporter.render_audio(generation_id, render_id)
            else:
                found = await self._exporter.audio(generation_id, level, wait_seconds)
            audio = converted(found, conversion)
            audio.require_start(start_frame)
            yield export_pb2.StreamAudioResponse(header=converters.from_audio(audio))
            writer = PcmWriter(audio.take.channels, start_frame)
            async with aclosing(audio.blocks(start_frame)) as blocks:
                async for pcm in blocks:
                    for chunk in writer.chunks(pcm):
                        yield export_pb2.StreamAudioResponse(chunk=chunk)
            yield export_pb2.StreamAudioResponse(end=writer.end())

    async def Download(
        self, request: export_pb2.DownloadRequest, context: Context
    ) -> AsyncIterator[export_pb2.DownloadResponse]:
        start_byte = converters.to_start(request.start_byte, "start_byte")
        byte_count = converters.to_start(request.byte_count, "byte_count")
        which = converters.to_generation_id(request.generation_id), converters.to_render_id(request.render_id)
        with self._exporter.usage.reading(*which):
            path = await self._exporter.path(*which)
            async with download(path, start_byte, byte_count) as file, aclosing(file.messages()) as messages:
                response = export_pb2.DownloadResponse(file_name=file.name, file_size_bytes=file.file_size_bytes)
                async for response.data in messages:
                    yield response
                    response = export_pb2.DownloadResponse()

    async def GetWaveform(
        self, request: export_pb2.GetWaveformRequest, context: Context
    ) -> export_pb2.GetWaveformResponse:
        points = converters.to_points(request.points)
        which = converters.to_generation_id(request.generation_id), converters.to_render_id(request.render_id)
        with self._exporter.usage.reading(*which):
            path = await self._exporter.path(*which)
            return converters.from_waveform(await on_thread(waveform, path, points))

    async def DeleteFile(
        self, request: export_pb2.DeleteFileRequest, context: Context
    ) -> export_pb2.DeleteFileResponse:
        generation_id = converters.to_generation_id(request.generation_id)
        render_id = converters.to_render_id(request.render_id)
        await self._cleanup.delete(generation_id, render_id, only_if_unused=request.only_if_unused)
        log.info("deleted", generation_id=generation_id, render_id=render_id)
        return export_pb2.DeleteFileResponse()

    async def ListFiles(self, request: export_pb2.ListFilesRequest, context: Context) -> export_pb2.ListFilesResponse:
        kinds, page = library_converters.to_kinds(request.kinds), Page(request.page_size, request.page_token)
        relative = self._exporter.library.relative

        def look() -> export_pb2.ListFilesResponse:
            with disk_errors("listing the library"):
                found, token = self._exporter.inventory.page(kinds, page)
                files = [library_converters.from_file(file, relative, contents(file.path)) for file in found]
                return export_pb2.ListFilesResponse(files=files, next_page_token=token)

        return await on_thread(look)

    async def GetLibraryStatistics(
        self, request: export_pb2.GetLibraryStatisticsRequest, context: Context
    ) -> export_pb2.GetLibraryStatisticsResponse:
        with disk_errors("looking through the library"):
            return library_converters.from_statistics(await on_thread(statistics, self._exporter.inventory))

    async def VerifyFiles(
        self, request: export_pb2.VerifyFilesRequest, context: Context
    ) -> AsyncIterator[export_pb2.VerifyFilesResponse]:
        library = self._exporter.library
        for generation_id, sha256 in library_converters.to_expected(request.files):
            found = verify(library, generation_id, sha256, presence_only=request.presence_only)
            while (verified := await on_thread(next, found, None)) is not None:
                yield library_converters.from_verified(verified, library.relative)

    async def Cleanup(
        self, request: export_pb2.CleanupRequest, context: Context
    ) -> AsyncIterator[export_pb2.CleanupResponse]:
        policy = library_converters.to_policy(request)
        async with aclosing(self._cleanup.run(policy, dry_run=request.dry_run)) as cleaned:
            async for one in cleaned:
                if not request.dry_run and not one.kept_because:
                    log.info("cleaned up", file_path=str(one.file.path), reason=one.reason.value)
                yield library_converters.from_cleaned(one, self._exporter.library.relative)


async def _receive(upload: Upload, session: Session) -> Landed:
    async with aclosing(upload.pcm()) as samples:
        async for pcm in samples:
            await session.write(pcm)
    return await session.finish()
