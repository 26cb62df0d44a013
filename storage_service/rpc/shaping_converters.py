"""Conversion of what shapes a generation, and of lineage, between messages and the domain's types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dgx_music.limits import DEFAULT_CONTINUATION_SECONDS
from dgx_music.storage.v1 import conditioning_pb2, storage_pb2
from service_runtime.message_fields import read_fields
from storage_service.db.models import Generation
from storage_service.domain.lineage import LineageNode, Parent, find_parents


def shaping_from_proto(request: storage_pb2.CreateGenerationRequest) -> dict[str, Any]:
    """Returns the arguments of NewGeneration that shape it besides its prompt."""
    shaping: dict[str, Any] = {
        "conditioning": read_fields(request.conditioning),
        "variation_of": request.variation_of.lower() or None,
    }
    for name in ("edit", "loop"):
        shaping[name] = read_fields(getattr(request, name)) if request.HasField(name) else None
    if request.HasField("continuation"):
        seconds = request.continuation.seconds or DEFAULT_CONTINUATION_SECONDS
        shaping["continuation"] = {**read_fields(request.continuation), "seconds": seconds}
    return shaping


def shaping_to_proto(row: Generation) -> dict[str, Any]:
    """Returns the fields of Generation that `shaping_from_proto` stored, and what follows from them."""
    return {
        "continuation": storage_pb2.Continuation(**row.continuation) if row.continuation else None,
        "conditioning": conditioning_pb2.Conditioning(**row.conditioning) if row.conditioning else None,
        "edit": conditioning_pb2.Edit(**row.edit) if row.edit else None,
        "loop": conditioning_pb2.Loop(**row.loop) if row.loop else None,
        "parents": _parents_to_proto(find_parents(row)),
    }


def node_to_proto(node: LineageNode) -> storage_pb2.LineageNode:
    """Converts a node. What is not known is unset."""
    message = storage_pb2.LineageNode(
        id=node.id,
        parents=_parents_to_proto(node.parents),
        prompt=node.prompt or "",
        state=None if node.status is None else f"GENERATION_STATE_{node.status.name}",
    )
    if node.created_at is not None:
        message.created_at.FromDatetime(node.created_at)
    return message


def _parents_to_proto(parents: Iterable[Parent]) -> list[conditioning_pb2.Parent]:
    return [
        conditioning_pb2.Parent(id=parent.id, relation=f"LINEAGE_RELATION_{parent.relation.name}") for parent in parents
    ]
