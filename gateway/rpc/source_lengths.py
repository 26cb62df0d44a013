"""Finds the audio that a request is made from, and how long it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass

import grpc
import grpc.aio

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL
from dgx_music.errors import FailedPrecondition, InvalidArgument
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.limits import STYLE_SECONDS_RANGE
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1 import storage_pb2_grpc
from gateway.rpc.service_client import ServiceClient
from service_runtime.validation import check_finite, check_uuid


@dataclass(frozen=True, slots=True)
class SourceUse:
    """What a field of a request takes from earlier music."""

    field: str
    source_id: str
    start_seconds: float = 0.0
    least_seconds: float = 0.0
    """How much there has to be from the start on."""

    def check(self) -> None:
        """Checks all but the source itself."""
        check_uuid(f"{self.field}.source_id", self.source_id)
        check_finite(f"{self.field}.start_seconds", self.start_seconds)

    def check_length(self, seconds: float) -> None:
        """Raises InvalidArgument if the source, which has this length, is too short."""
        if self.start_seconds and self.start_seconds >= seconds:
            problem = f"must be before the end of the source at {seconds:.10g} s, not {self.start_seconds:.10g}"
            raise InvalidArgument(f"{self.field}.start_seconds", problem)
        if seconds - self.start_seconds < self.least_seconds:
            at_fault = "start_seconds" if self.start_seconds else "source_id"
            problem = f"leaves {seconds - self.start_seconds:.3g} s of audio; {self.least_seconds:g} s are needed"
            raise InvalidArgument(f"{self.field}.{at_fault}", problem)


class SourceLengths:
    """The sources of requests, in storage and export."""

    def __init__(
        self,
        storage_client: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub],
        export_client: ServiceClient[export_pb2_grpc.ExportServiceAsyncStub],
    ) -> None:
        self._storage, self._export = storage_client, export_client

    async def measure(self, request: storage.CreateGenerationRequest) -> dict[str, float]:
        """Returns the length of each source in seconds, by its id as the request has it.

        Raises InvalidArgument for a source that does not exist or is too short, and FailedPrecondition for one that is
        not finished.
        """
        lengths: dict[str, float] = {}
        for use in _uses(request):
            use.check()
            if use.source_id not in lengths:
                await self._require_completed(use.source_id)
                lengths[use.source_id] = await self._measure(use)
            use.check_length(lengths[use.source_id])
        return lengths

    async def _require_completed(self, source_id: str) -> None:
        try:
            request = storage.GetGenerationRequest(id=source_id)
            source = (await self._storage.call_unary(self._storage.stub.GetGeneration, request)).generation
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return  # Storage does not know the clips.
        if source.state != storage.GENERATION_STATE_COMPLETED:
            state = storage.GenerationState.Name(source.state).removeprefix("GENERATION_STATE_")
            raise FailedPrecondition(
                f"generation {source_id} is {state}; only a COMPLETED generation can be used for another",
                reason="SOURCE_NOT_COMPLETED",
                metadata={"id": source_id, "state": state},
            )

    async def _measure(self, use: SourceUse) -> float:
        request = export.StreamAudioRequest(generation_id=use.source_id, level=AUDIO_LEVEL_FINAL)
        try:
            async with aclosing(self._export.call_server_stream(self._export.stub.StreamAudio, request)) as responses:
                async for response in responses:
                    return response.header.expected_frames / response.header.sample_rate_hz
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        raise InvalidArgument(
            f"{use.field}.source_id",
            f"there is no finished generation or clip {use.source_id}",
            reason="UNKNOWN_SOURCE",
        )


def _uses(request: storage.CreateGenerationRequest) -> Iterator[SourceUse]:
    melody, style = request.conditioning.melody, request.conditioning.style
    if request.HasField("edit"):
        yield SourceUse("edit", request.edit.source_id)
    if request.HasField("continuation"):
        yield SourceUse("continuation", request.continuation.source_id)
    if request.conditioning.HasField("melody"):
        yield SourceUse("conditioning.melody", melody.source_id, melody.start_seconds)
    if request.conditioning.HasField("style"):
        yield SourceUse("conditioning.style", style.source_id, style.start_seconds, STYLE_SECONDS_RANGE[0])
