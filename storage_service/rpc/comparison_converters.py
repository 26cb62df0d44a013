"""Conversion between protobuf messages and comparisons."""

from __future__ import annotations

from collections.abc import Iterable

from dgx_music.storage.v1 import storage_pb2
from storage_service.db.dependent_models import Comparison
from storage_service.domain.comparisons.comparison_creation import NewComparison
from storage_service.rpc.converters import timestamp_to_proto


def new_comparison_from_proto(request: storage_pb2.CreateComparisonRequest) -> NewComparison:
    """Converts a request. The domain checks it."""
    return NewComparison(list(request.generation_ids), request.blind, request.request_id or None)


def comparison_to_proto(comparison: Comparison) -> storage_pb2.Comparison:
    """Converts a comparison with its entries."""
    return storage_pb2.Comparison(
        id=comparison.id,
        create_time=timestamp_to_proto(comparison.created_at),
        generation_ids=[entry.generation_id for entry in comparison.entries],
        blind=comparison.blind,
    )


def page_to_proto(comparisons: Iterable[Comparison], token: str) -> storage_pb2.ListComparisonsResponse:
    """Converts a page of a list."""
    return storage_pb2.ListComparisonsResponse(comparisons=map(comparison_to_proto, comparisons), next_page_token=token)
