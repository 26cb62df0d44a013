"""The lineage of a generation as a tree: what it was made from above it, what was made from it below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dgx_music.storage.v1.conditioning_pb2 import LineageRelation
from dgx_music.storage.v1.storage_pb2 import GENERATION_STATE_UNSPECIFIED, GenerationState, LineageNode

MAX_PROMPT_CHARACTERS = 50


def draw_lineage(nodes: Sequence[LineageNode], generation_id: str) -> Iterator[str]:
    """Yields the lines. `nodes` have parents before their children, as GetLineage returns them.

    A node with several parents stands under each of them, but what was made from it only under the first.
    """
    by_id = {node.id: node for node in nodes}
    children: dict[str, list[str]] = {node.id: [] for node in nodes}
    for node in nodes:
        for parent_id in dict.fromkeys(parent.id for parent in node.parents):
            if parent_id in children:
                children[parent_id].append(node.id)
    drawn: set[str] = set()
    for node in nodes:
        if not any(parent.id in by_id for parent in node.parents):
            yield _describe(node, "", generation_id)
            yield from _draw_children(node.id, "", by_id, children, drawn, generation_id)


def _draw_children(
    parent_id: str,
    indent: str,
    by_id: Mapping[str, LineageNode],
    children: Mapping[str, Sequence[str]],
    drawn: set[str],
    generation_id: str,
) -> Iterator[str]:
    # Not recursive: a chain may be longer than Python's stack.
    drawn.add(parent_id)
    pending = [(parent_id, child_id, indent, child_id == children[parent_id][-1]) for child_id in children[parent_id]]
    pending.reverse()
    while pending:
        parent_id, node_id, indent, is_last = pending.pop()
        branch, below = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        more = children[node_id] if node_id not in drawn else []
        hint = " …" if children[node_id] and not more else ""
        yield f"{indent}{branch}{_describe(by_id[node_id], parent_id, generation_id)}{hint}"
        drawn.add(node_id)
        pending += [(node_id, child_id, indent + below, child_id == more[-1]) for child_id in reversed(more)]


def _describe(node: LineageNode, parent_id: str, generation_id: str) -> str:
    relations = [
        LineageRelation.Name(parent.relation).removeprefix("LINEAGE_RELATION_").lower()
        for parent in node.parents
        if parent.id == parent_id
    ]
    what = "clip, or deleted"
    if node.state != GENERATION_STATE_UNSPECIFIED:
        prompt = " ".join(node.prompt.split())
        shown = prompt if len(prompt) <= MAX_PROMPT_CHARACTERS else f"{prompt[: MAX_PROMPT_CHARACTERS - 1]}…"
        what = f'{GenerationState.Name(node.state).removeprefix("GENERATION_STATE_").lower()} "{shown}"'
    mark = "  ← this one" if node.id == generation_id else ""
    return " ".join(filter(None, [node.id, " and ".join(relations), what])) + mark
