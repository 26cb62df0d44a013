"""What shapes a generation survives the way from the request through the row to the answer."""

from __future__ import annotations

from datetime import UTC, datetime

from dgx_music.storage.v1 import storage_pb2
from dgx_music.storage.v1.conditioning_pb2 import (
    EDIT_KIND_REPAINT,
    LINEAGE_RELATION_CONTINUATION,
    LINEAGE_RELATION_MELODY,
    LINEAGE_RELATION_REPAINT,
    LINEAGE_RELATION_VARIATION,
    Adapter,
    Conditioning,
    Edit,
    Loop,
    Melody,
    Parent,
    PromptSection,
    WeightedPrompt,
)
from storage_service.db.models import Generation
from storage_service.domain import lineage
from storage_service.domain.lineage import LineageNode, LineageRelation
from storage_service.rpc.shaping_converters import node_to_proto, shaping_from_proto, shaping_to_proto
from storage_service.states import GenerationStatus

ID = "11111111-2222-4333-8444-55555555AAAA"
CONDITIONING = Conditioning(
    negative_prompt="drums",
    prompt_weight=0.5,
    further_prompts=[WeightedPrompt(prompt="strings", weight=2.0)],
    sections=[PromptSection(end_seconds=8.0, prompt="calm"), PromptSection(start_seconds=8, end_seconds=9, prompt="x")],
    melody=Melody(source_id=ID.lower(), start_seconds=1.5),
    adapters=[Adapter(name="a"), Adapter(name="b", scale=0.0)],
    lyrics="la",
    steps=8,
)


def row_of(request: storage_pb2.CreateGenerationRequest) -> Generation:
    return Generation(id=ID.lower(), **shaping_from_proto(request))


def test_everything_survives() -> None:
    request = storage_pb2.CreateGenerationRequest(
        conditioning=CONDITIONING,
        edit=Edit(source_id=ID, kind=EDIT_KIND_REPAINT, start_seconds=1.0, end_seconds=2.0),
        loop=Loop(bars=8, bpm=84.0),
        variation_of=ID,
    )
    answer = storage_pb2.Generation(**shaping_to_proto(row_of(request)))
    assert answer.conditioning == CONDITIONING
    assert answer.conditioning.adapters[1].HasField("scale")
    assert answer.edit == Edit(source_id=ID.lower(), kind=EDIT_KIND_REPAINT, start_seconds=1.0, end_seconds=2.0)
    assert answer.loop == request.loop
    assert list(answer.parents) == [
        Parent(id=ID.lower(), relation=LINEAGE_RELATION_MELODY),
        Parent(id=ID.lower(), relation=LINEAGE_RELATION_REPAINT),
        Parent(id=ID.lower(), relation=LINEAGE_RELATION_VARIATION),
    ]


def test_continuation_has_its_default_seconds() -> None:
    request = storage_pb2.CreateGenerationRequest(continuation=storage_pb2.Continuation(source_id=ID))
    answer = storage_pb2.Generation(**shaping_to_proto(row_of(request)))
    assert answer.continuation == storage_pb2.Continuation(source_id=ID.lower(), seconds=10.0)
    assert list(answer.parents) == [Parent(id=ID.lower(), relation=LINEAGE_RELATION_CONTINUATION)]


def test_what_is_unset_stays_unset() -> None:
    answer = storage_pb2.Generation(**shaping_to_proto(row_of(storage_pb2.CreateGenerationRequest())))
    assert answer == storage_pb2.Generation()


def test_node_of_a_clip_has_neither_prompt_nor_time() -> None:
    parents, created_at = (lineage.Parent(ID.lower(), LineageRelation.MELODY),), datetime(2026, 11, 29, tzinfo=UTC)
    node = node_to_proto(LineageNode(ID, parents, "piano", GenerationStatus.COMPLETED, created_at))
    assert node.created_at.ToDatetime(tzinfo=UTC) == created_at
    assert (node.prompt, node.state) == ("piano", storage_pb2.GENERATION_STATE_COMPLETED)
    assert list(node.parents) == [Parent(id=ID.lower(), relation=LINEAGE_RELATION_MELODY)]
    assert node_to_proto(LineageNode(ID, ())) == storage_pb2.LineageNode(id=ID)
