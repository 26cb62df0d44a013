"""The servicer: proto in, domain call, proto out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio
import structlog

from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from export_service import convert
from export_service.conversion import converted
from export_service.download import download
from export_service.exporter import Exporter
from export_service.listening import FinalAudio, LiveAudio
from export_service.normalization import Aim
from export_service.renderer import Renderer
from export_service.session import Finish, Landed, Session
from export_service.threads import on_thread
from export_service.upload import Upload, file_data
from export_service.waveform import waveform
from service_runtime.output_messages import options_of
from service_runtime.pcm import PcmWriter
from service_runtime.telemetry import get_logger

log = get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class ExportServicer(export_pb2_grpc.ExportServiceServicer):
    """dgx_music.export.v1.ExportService."""

    def __init__(self, exporter: Exporter, renderer: Renderer, aim: Aim, generator: str) -> None:
        self._exporter, self._renderer, self._aim, self._generator = exporter, renderer, aim, generator

    async def Export(
        self, request_iterator: AsyncIterator[export_pb2.ExportRequest], context: Context
    ) -> export_pb2.ExportResponse:
        upload = Upload(request_iterator)
        header = await upload.header()
        take = convert.to_take(header.audio, "header.audio")
        options = options_of(header.output, "header.output")
        tags = convert.to_tags(header.tags, "header.tags")
        tempo_hint_bpm = convert.to_tempo_hint(header.tempo_hint_bpm, "header.tempo_hint_bpm")
        finish = Finish(options, tags, self._aim, self._generator, tempo_hint_bpm)
        with structlog.contextvars.bound_contextvars(generation_id=take.generation_id, attempt=take.attempt):
            async with self._exporter.session(take, finish) as session:
                landed = await session.unless_broken_off(_receive(upload, session))
            path = self._exporter.library.relative(landed.path)
            finished = landed.finished
            log.info("exported", file_path=path, frames=finished.frames, gain_db=finished.normalization.gain_db)
            return convert.from_finished(finished, path, upload.sha256, landed.analysis)

    async def Render(self, request: export_pb2.RenderRequest, context: Context) -> export_pb2.RenderResponse:
        generation_id = convert.to_generation_id(request.generation_id)
        options = options_of(request.output, "output")
        as_it_is = Aim(None, self._aim.ceiling_dbtp)
        render = await self._renderer.render(generation_id, options, as_it_is)
        path = self._exporter.library.relative(render.path)
        return export_pb2.RenderResponse(render_id=render.render_id, file=convert.from_finished(render.finished, path))

    async def ImportClip(
        self, request_iterator: AsyncIterator[export_pb2.ImportClipRequest], context: Context
    ) -> export_pb2.ImportClipResponse:
        async with aclosing(file_data(request_iterator)) as data:
            clip = await self._exporter.import_clip(data)
        log.info("imported", clip_id=clip.clip_id, frames=clip.frames, sample_rate_hz=clip.sample_rate_hz)
        return convert.from_clip(clip)

    async def StreamAudio(
        self, request: export_pb2.StreamAudioRequest, context: Context
    ) -> AsyncIterator[export_pb2.StreamAudioResponse]:
        start_frame = convert.to_start(request.start_frame, "start_frame")
        conversion = convert.to_conversion(request)
        generation_id = convert.to_generation_id(request.generation_id)
        level = convert.to_level(request.level, "level")
        wait_seconds = convert.to_wait_seconds(request.wait_seconds)
        found: LiveAudio | FinalAudio
        if render_id := convert.to_render_id(request.render_id, level):
            found = await self._exporter.render_audio(generation_id, render_id)
        else:
            found = await self._exporter.audio(generation_id, level, wait_seconds)
        audio = converted(found, conversion)
        audio.require_start(start_frame)
        yield export_pb2.StreamAudioResponse(header=convert.from_audio(audio))
        writer = PcmWriter(audio.take.channels, start_frame)
        async with aclosing(audio.blocks(start_frame)) as blocks:
            async for pcm in blocks:
                for chunk in writer.chunks(pcm):
                    yield export_pb2.StreamAudioResponse(chunk=chunk)
        yield export_pb2.StreamAudioResponse(end=writer.end())

    async def Download(
        self, request: export_pb2.DownloadRequest, context: Context
    ) -> AsyncIterator[export_pb2.DownloadResponse]:
        start_byte = convert.to_start(request.start_byte, "start_byte")
        byte_count = convert.to_start(request.byte_count, "byte_count")
        path = await self._exporter.path(
            convert.to_generation_id(request.generation_id), convert.to_render_id(request.render_id)
        )
        async with download(path, start_byte, byte_count) as file, aclosing(file.messages()) as messages:
            response = export_pb2.DownloadResponse(file_name=file.name, file_size_bytes=file.file_size_bytes)
            async for response.data in messages:
                yield response
                response = export_pb2.DownloadResponse()

    async def GetWaveform(
        self, request: export_pb2.GetWaveformRequest, context: Context
    ) -> export_pb2.GetWaveformResponse:
        points = convert.to_points(request.points)
        path = await self._exporter.path(
            convert.to_generation_id(request.generation_id), convert.to_render_id(request.render_id)
        )
        return convert.from_waveform(await on_thread(waveform, path, points))

    async def DeleteFile(
        self, request: export_pb2.DeleteFileRequest, context: Context
    ) -> export_pb2.DeleteFileResponse:
        generation_id = convert.to_generation_id(request.generation_id)
        await self._exporter.delete(generation_id)
        log.info("deleted", generation_id=generation_id)
        return export_pb2.DeleteFileResponse()


async def _receive(upload: Upload, session: Session) -> Landed:
    async with aclosing(upload.pcm()) as samples:
        async for pcm in samples:
            await session.write(pcm)
    return await session.finish()
