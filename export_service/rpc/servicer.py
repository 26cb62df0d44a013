"""The gRPC servicer: converts each request, calls the domain and converts the result."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, closing
from typing import Any

import grpc.aio
from structlog.contextvars import bind_contextvars

from dgx_music.address import EXPORT_ADDRESS_KEY
from dgx_music.errors import InvalidArgument, ServiceError
from dgx_music.export.v1 import export_pb2
from dgx_music.pcm import PcmWriter
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.m4a_file import require_encoder
from export_service.formats.provenance import Signer
from export_service.library.cleanup import Cleanup
from export_service.library.filesystem import translate_disk_errors
from export_service.library.library_statistics import collect_statistics
from export_service.pipeline.attempt_processor import ExportResult, ExportSpec
from export_service.pipeline.export_manager import ExportManager
from export_service.pipeline.export_metrics import phase
from export_service.pipeline.export_session import ExportSession
from export_service.pipeline.renderer import Renderer
from export_service.pipeline.tag_editor import TagEditor
from export_service.rpc import converters, export_converters, library_converters
from export_service.rpc.measurement_servicer import MeasurementServicer
from export_service.rpc.upload_stream import UploadStream, read_file_data
from export_service.streaming.audio_stream import FinalAudio, LiveAudio
from export_service.streaming.converted_audio import convert_audio
from export_service.streaming.download import Download
from export_service.streaming.spool import ReceivedAudio
from export_service.threads import run_in_thread
from service_runtime.observability.logging import get_logger
from service_runtime.rpc.output_converters import output_options_from_proto
from service_runtime.rpc.paging import Page

log = get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class ExportServicer(MeasurementServicer):
    """dgx_music.export.v1.ExportService."""

    def __init__(
        self,
        manager: ExportManager,
        renderer: Renderer,
        editor: TagEditor,
        target: LoudnessTarget,
        generator: str,
        signer: Signer | None,
        advertised_address: str | None = None,
    ) -> None:
        super().__init__(manager)
        self._renderer, self._editor, self._cleanup = renderer, editor, Cleanup(manager)
        self._target, self._generator, self._signer = target, generator, signer
        self._advertised_address = advertised_address
        self.problem: ServiceError | None = None
        """Why no file can be written, as the last check has found."""

    async def Export(
        self, request_iterator: AsyncIterator[export_pb2.ExportRequest], context: Context
    ) -> export_pb2.ExportResponse:
        upload = UploadStream(request_iterator)
        header = await upload.read_header()
        attempt, spec = converters.to_attempt_spec(header.audio, "header.audio"), self._to_spec(header)
        bind_contextvars(generation_id=attempt.generation_id, attempt=attempt.attempt)
        if header.resume_frames:
            opened = self._manager.continue_session(attempt, spec, header.resume_frames)
        else:
            opened = self._manager.open_session(attempt, spec)
        async with opened as session:
            await self._tell_address(context)
            result = await session.run_until_aborted(_receive(upload, session))
        if isinstance(result, ReceivedAudio):
            log.info("suspended", frames=result.frames)
            return export_pb2.ExportResponse(frames=result.frames, pcm_sha256=result.pcm_sha256)
        return self._from_result(result)

    async def ResumeExport(
        self, request: export_pb2.ResumeExportRequest, context: Context
    ) -> export_pb2.ResumeExportResponse:
        generation_id = converters.to_generation_id(request.generation_id)
        attempt = converters.to_attempt(request.attempt, "attempt")
        header = export_pb2.ExportHeader()

        def build_spec(values: Mapping[str, Any]) -> ExportSpec:
            header.CopyFrom(export_converters.header_from_json(values))
            return self._to_spec(header)

        bind_contextvars(attempt=attempt)
        if (suspended := await self._manager.find_suspended(generation_id, attempt)) is not None:
            await self._tell_address(context)
            return export_pb2.ResumeExportResponse(
                header=export_converters.header_from_json(suspended.header),
                suspended_frames=suspended.frames,
                suspended_sha256=suspended.pcm_sha256,
            )
        async with self._manager.resume_session(generation_id, attempt, build_spec) as session:
            await self._tell_address(context)
            result = await session.run_until_aborted(session.resume())
        return export_pb2.ResumeExportResponse(file=self._from_result(result), header=header)

    async def _tell_address(self, context: Context) -> None:
        """Tells the caller where listeners find the samples, once they can."""
        if self._advertised_address is not None:
            await context.send_initial_metadata(((EXPORT_ADDRESS_KEY, self._advertised_address),))

    def _to_spec(self, header: export_pb2.ExportHeader) -> ExportSpec:
        return export_converters.to_export_spec(header, self._target, self._generator, self._signer)

    def _from_result(self, result: ExportResult) -> export_pb2.ExportResponse:
        library, file = self._manager.library, result.file
        path, manifest = library.relative_path(result.path), library.manifest_path(result.path, file.file_sha256)
        log.info("exported", file_path=path, frames=file.frames, gain_db=file.normalization.gain_db)
        return converters.from_mastered_file(file, path, manifest, result.pcm_sha256, result.analysis)

    async def Render(self, request: export_pb2.RenderRequest, context: Context) -> export_pb2.RenderResponse:
        generation_id = converters.to_generation_id(request.generation_id)
        options = output_options_from_proto(request.output, "output")
        # Unless the options say otherwise, a render is as loud as the file that it is made from.
        default_target = LoudnessTarget(None, self._target.ceiling_dbtp)
        with self._manager.locks.read_lock(generation_id):
            render = await self._renderer.render(generation_id, options, default_target)
        library = self._manager.library
        path, manifest = library.relative_path(render.path), library.manifest_path(render.path, render.file.file_sha256)
        return export_pb2.RenderResponse(
            render_id=render.render_id, file=converters.from_mastered_file(render.file, path, manifest)
        )

    async def EditTags(self, request: export_pb2.EditTagsRequest, context: Context) -> export_pb2.EditTagsResponse:
        file_id = converters.to_generation_id(request.generation_id), converters.to_render_id(request.render_id)
        edit = converters.to_tag_edit(request)
        with self._manager.locks.read_lock(*file_id):
            edited = await self._editor.edit(*file_id, edit)
        library = self._manager.library
        manifest = library.manifest_path(edited.path, edited.sha256)
        return converters.from_edited_file(edited, library.relative_path(edited.path), manifest)

    async def CheckOutput(
        self, request: export_pb2.CheckOutputRequest, context: Context
    ) -> export_pb2.CheckOutputResponse:
        require_encoder(output_options_from_proto(request.output, "output").format)
        if self.problem is not None:
            raise self.problem.with_traceback(None)
        return export_pb2.CheckOutputResponse()

    async def ImportClip(
        self, request_iterator: AsyncIterator[export_pb2.ImportClipRequest], context: Context
    ) -> export_pb2.ImportClipResponse:
        async with aclosing(read_file_data(request_iterator)) as data:
            clip = await self._manager.import_clip(data)
        log.info("clip_imported", clip_id=clip.clip_id, frames=clip.frames, sample_rate_hz=clip.sample_rate_hz)
        return converters.from_clip(clip)

    async def StreamAudio(
        self, request: export_pb2.StreamAudioRequest, context: Context
    ) -> AsyncIterator[export_pb2.StreamAudioResponse]:
        start_frame = converters.to_position(request.start_frame, "start_frame")
        conversion = converters.to_conversion(request)
        generation_id = converters.to_generation_id(request.generation_id)
        level = converters.to_level(request.level, "level")
        wait_seconds = converters.to_wait_seconds(request.wait_seconds)
        render_id = converters.to_render_id(request.render_id, level)
        source: LiveAudio | FinalAudio
        with self._manager.locks.read_lock(generation_id, render_id):
            if render_id:
                source = await self._manager.open_render_audio(generation_id, render_id)
            else:
                source = await self._manager.open_audio(generation_id, level, wait_seconds)
            with closing(source):
                audio = convert_audio(source, conversion)
                audio.validate_start_frame(start_frame)
                yield export_pb2.StreamAudioResponse(header=converters.from_audio(audio))
                writer = PcmWriter(audio.spec.channels, start_frame)
                async with aclosing(audio.blocks(start_frame)) as blocks:
                    async for pcm in blocks:
                        for chunk in writer.chunks(pcm):
                            yield export_pb2.StreamAudioResponse(chunk=chunk)
                yield export_pb2.StreamAudioResponse(end=writer.end())

    async def Download(
        self, request: export_pb2.DownloadRequest, context: Context
    ) -> AsyncIterator[export_pb2.DownloadResponse]:
        start_byte = converters.to_position(request.start_byte, "start_byte")
        byte_count = converters.to_position(request.byte_count, "byte_count")
        file_id = converters.to_generation_id(request.generation_id), converters.to_render_id(request.render_id)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._manager.locks.read_lock(*file_id))
            file = await self._manager.open_file(*file_id, manifest=request.manifest)
            stack.enter_context(closing(file))
            response = export_pb2.DownloadResponse(file_name=file.name, file_size_bytes=file.size_bytes)
            chunks = Download(file, start_byte, byte_count).chunks()
            await stack.enter_async_context(aclosing(chunks))
            async for response.data in chunks:
                yield response
                response = export_pb2.DownloadResponse()

    async def GetDownloadUrl(
        self, request: export_pb2.GetDownloadUrlRequest, context: Context
    ) -> export_pb2.GetDownloadUrlResponse:
        expires = library_converters.to_expiry(request.expires_seconds)
        file_id = converters.to_generation_id(request.generation_id), converters.to_render_id(request.render_id)
        return library_converters.from_signed_url(await self._manager.sign_url(*file_id, expires), expires)

    async def DeleteFile(
        self, request: export_pb2.DeleteFileRequest, context: Context
    ) -> export_pb2.DeleteFileResponse:
        generation_id = converters.to_generation_id(request.generation_id)
        render_id = converters.to_render_id(request.render_id)
        if request.only_samples:
            if render_id or request.only_if_unused:
                raise InvalidArgument("only_samples", "must not be set together with render_id or only_if_unused")
            await self._manager.discard_samples(generation_id)
            return export_pb2.DeleteFileResponse()
        await self._cleanup.delete(generation_id, render_id, only_if_unused=request.only_if_unused)
        log.info("file_deleted", generation_id=generation_id, render_id=render_id)
        return export_pb2.DeleteFileResponse()

    async def ListFiles(self, request: export_pb2.ListFilesRequest, context: Context) -> export_pb2.ListFilesResponse:
        kinds, page = library_converters.to_kinds(request.kinds), Page(request.page_size, request.page_token)
        relative_path = self._manager.library.relative_path

        def list_page() -> export_pb2.ListFilesResponse:
            with translate_disk_errors("listing the library"):
                files, token = self._manager.inventory.list_page(kinds, page)
                infos = self._manager.inventory.read_infos(files)
                return export_pb2.ListFilesResponse(
                    files=[
                        library_converters.from_file(file, relative_path, info)
                        for file, info in zip(files, infos, strict=True)
                    ],
                    next_page_token=token,
                )

        return await run_in_thread(list_page)

    async def GetLibraryStatistics(
        self, request: export_pb2.GetLibraryStatisticsRequest, context: Context
    ) -> export_pb2.GetLibraryStatisticsResponse:
        with translate_disk_errors("listing the library"):
            return library_converters.from_statistics(await run_in_thread(collect_statistics, self._manager.inventory))

    async def VerifyFiles(
        self, request: export_pb2.VerifyFilesRequest, context: Context
    ) -> AsyncIterator[export_pb2.VerifyFilesResponse]:
        verify, relative_path = self._manager.inventory.verify, self._manager.library.relative_path
        for generation_id, sha256 in library_converters.to_expected(request.files):
            results = verify(generation_id, sha256, presence_only=request.presence_only)
            while (result := await run_in_thread(next, results, None)) is not None:
                yield library_converters.from_verification_result(result, relative_path)

    async def Cleanup(
        self, request: export_pb2.CleanupRequest, context: Context
    ) -> AsyncIterator[export_pb2.CleanupResponse]:
        policy = library_converters.to_cleanup_policy(request)
        async with aclosing(self._cleanup.run(policy, dry_run=request.dry_run)) as results:
            async for result in results:
                if not request.dry_run and not result.kept_because:
                    log.info("file_cleaned_up", file_path=str(result.file.path), reason=result.reason.value)
                yield library_converters.from_cleanup_result(result, self._manager.library.relative_path)


async def _receive(upload: UploadStream, session: ExportSession) -> ExportResult | ReceivedAudio:
    with phase("upload"):
        async with aclosing(upload.read_pcm()) as blocks:
            async for pcm in blocks:
                await session.write(pcm)
    if upload.is_suspended:
        return await session.suspend(upload.sha256)
    return await session.finish(upload.sha256)
