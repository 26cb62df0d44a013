"""Looks up the tempo that a generation is known to have."""

from __future__ import annotations

import grpc
import grpc.aio

from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1 import storage_pb2_grpc
from gateway.rpc.service_client import ServiceClient

TEMPO_KEYS = ("bpm", "measured_bpm")
"""Of a generation's metadata: the tempo that its model or the request says, and the one that was measured."""
BPM_RANGE = (40.0, 240.0)


def read_tempo(generation: storage.Generation) -> float:
    """Returns the tempo in beats per minute that a generation's metadata say, or 0."""
    for key in TEMPO_KEYS:
        bpm = generation.metadata.fields[key].number_value if key in generation.metadata.fields else 0.0
        if BPM_RANGE[0] <= bpm <= BPM_RANGE[1]:
            return bpm
    return 0.0


async def find_tempo(
    storage_client: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub], generation_id: str
) -> float:
    """Returns the tempo of a generation in beats per minute; 0 if none is known, and for a clip."""
    request = storage.GetGenerationRequest(id=generation_id)
    try:
        response = await storage_client.call_unary(storage_client.stub.GetGeneration, request)
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
            raise
        return 0.0  # It may be a clip; if it is nothing, export says so.
    return read_tempo(response.generation)
