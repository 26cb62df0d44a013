"""The tree of a lineage."""

from __future__ import annotations

from dgx_music.storage.v1.conditioning_pb2 import (
    LINEAGE_RELATION_EXTENSION,
    LINEAGE_RELATION_MELODY,
    LINEAGE_RELATION_STYLE,
    LINEAGE_RELATION_VARIATION,
    LineageRelation,
    Parent,
)
from dgx_music.storage.v1.storage_pb2 import GENERATION_STATE_COMPLETED, LineageNode
from gateway.cli.display.lineage_tree import draw_lineage


def node(id_: str, *parents: tuple[str, LineageRelation], prompt: str = "piano") -> LineageNode:
    links = [Parent(id=parent, relation=relation) for parent, relation in parents]
    return LineageNode(id=id_, parents=links, prompt=prompt, state=GENERATION_STATE_COMPLETED)


def test_tree_has_each_node_under_each_of_its_parents_and_its_children_once() -> None:
    nodes = [
        LineageNode(id="clip"),
        node("a", prompt="one\n" + "x" * 60),
        node(
            "b", ("clip", LINEAGE_RELATION_MELODY), ("clip", LINEAGE_RELATION_STYLE), ("a", LINEAGE_RELATION_VARIATION)
        ),
        node("c", ("b", LINEAGE_RELATION_EXTENSION)),
        node("d", ("c", LINEAGE_RELATION_EXTENSION), ("not listed", LINEAGE_RELATION_MELODY)),
        node("e", ("b", LINEAGE_RELATION_VARIATION)),
    ]
    assert list(draw_lineage(nodes, "c")) == [
        "clip clip, or deleted",
        '└─ b melody and style completed "piano"',
        '   ├─ c extension completed "piano"  ← this one',
        '   │  └─ d extension completed "piano"',
        '   └─ e variation completed "piano"',
        f'a completed "one {"x" * 45}…"',
        '└─ b variation completed "piano" …',
    ]


def test_long_chain_is_drawn() -> None:
    nodes = [node("0")] + [node(str(n), (str(n - 1), LINEAGE_RELATION_EXTENSION)) for n in range(1, 1000)]
    lines = list(draw_lineage(nodes, "999"))
    assert len(lines) == 1000
    assert lines[-1].endswith("← this one")
