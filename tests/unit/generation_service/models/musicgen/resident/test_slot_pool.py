"""The places in the batch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import ResourceExhausted  # noqa: E402
from generation_service.models.musicgen.conditions import MAX_BRANCHES  # noqa: E402
from generation_service.models.musicgen.resident.slot_pool import SlotPool, count_slots  # noqa: E402


def test_slots_have_room_for_each_branch_and_the_negative_condition() -> None:
    assert [count_slots(branches) for branches in range(1, MAX_BRANCHES + 1)] == [1, 2, 2, 3]


def test_a_batch_has_as_many_places_as_asked_for() -> None:
    pool = SlotPool(2)
    first, second = pool.reserve(1), pool.reserve(1)
    with pytest.raises(ResourceExhausted, match="all 2 places in the batch are taken;") as error:
        pool.reserve(1)
    assert error.value.reason == "BATCH_FULL"
    pool.release(first)
    assert pool.reserve(1) == first
    assert first != second


def test_request_with_branches_waits_for_its_places() -> None:
    pool = SlotPool(5)
    held = pool.reserve(2), pool.reserve(4)
    assert len({slot for slots in held for slot in slots}) == 5
    pool.release(held[0])
    pool.reserve(1)
    with pytest.raises(ResourceExhausted, match="takes 2 places in the batch, of which 1 are free;"):
        pool.reserve(3)
    pool.reserve(1)


def test_a_batch_of_one_has_room_for_all_branches() -> None:
    pool = SlotPool(1)
    slots = pool.reserve(MAX_BRANCHES)
    with pytest.raises(ResourceExhausted, match="all 1 places"):
        pool.reserve(1)
    pool.release(slots)
    assert pool.reserve(MAX_BRANCHES) == slots
