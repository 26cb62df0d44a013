"""Requests whose guidance has several branches: which rows of a step are theirs, and how their logits are combined.

The rows of a request are, in this order: its first branch, the negative condition, its other branches. A slot has two
rows, so a request has a leading slot and, if it has several branches, *companions*. All of them hold the same codes and
sample in the same way: each gets the combined logits, and so the same codes, although they do not communicate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from generation_service.models.musicgen.code_generator import CodeRow
from generation_service.models.musicgen.conditions import MAX_BRANCHES, Condition, WindowConditions
from generation_service.models.musicgen.resident.page_pool import RequestPages
from generation_service.models.musicgen.resident.slot_pool import count_slots
from generation_service.models.musicgen.sampling import CFG_ROWS


@dataclass(eq=False, slots=True, kw_only=True)
class ResidentRow(CodeRow):
    """A request, its slots in the state, and its pages."""

    slots: Sequence[int]
    """The leading one, and those of the companions that it has in the window with the most branches."""
    pages: RequestPages
    samples_any: bool
    """Whether the request needs a step in which any top-k and top-p is possible."""
    texts: list[Tensor | None]
    """The texts whose keys and values are in the pages, by row; of each row that has had one yet."""
    tokens: int = 0
    """The length of the longest text of the window."""

    @property
    def window_slots(self) -> Sequence[int]:
        """Those that the current window needs."""
        return self.slots[: count_slots(len(self.conditions.branches))]


def conditions_by_row(conditions: WindowConditions) -> list[Condition]:
    """The condition of each row of a request."""
    first, *others = (branch.condition for branch in conditions.branches)
    return [first, conditions.negative, *others]


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Which slots a step computes, in the order of its rows, and which rows make up the logits of which slot."""

    slots: list[int]
    """The leading slot of each request, and then the companions."""
    sources: npt.NDArray[np.int64] | None
    """[S, 1 + MAX_BRANCHES]: for each slot of the step the one whose weights apply, and the row of each branch in the
    step; None if no request has several branches."""


def lay_out_step(rows: Sequence[ResidentRow], padding_slot: int, *, combines: bool = False) -> StepLayout:
    """`padding_slot`, which is also the number of the other slots, has the weights of a single branch.

    combines: whether there are sources in any case.
    """
    slots = [row.slots[0] for row in rows]
    if not combines and all(len(row.conditions.branches) == 1 for row in rows):
        return StepLayout(slots, None)
    sources = np.empty((padding_slot, 1 + MAX_BRANCHES), np.int64)
    sources[:, 0] = padding_slot
    sources[:, 1:] = CFG_ROWS * np.arange(padding_slot)[:, None]
    for leader, row in enumerate(rows):
        branches = len(row.conditions.branches)
        if branches == 1:
            continue
        first, *companions = row.window_slots
        places = [leader, *range(len(slots), len(slots) + len(companions))]
        slots += companions
        request_rows = [CFG_ROWS * place + index for place in places for index in range(CFG_ROWS)]
        of_branches = [request_rows[0], *request_rows[CFG_ROWS : branches + 1]]
        sources[places, 0] = first
        sources[places, 1:] = request_rows[0]
        sources[places, 1 : 1 + branches] = of_branches
    return StepLayout(slots, sources)
