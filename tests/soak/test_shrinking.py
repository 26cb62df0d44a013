"""The search for a shorter schedule that fails."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.soak.shrinking import shrink


@pytest.mark.parametrize("culprits", [set(), {0}, {3, 17}, {0, 9, 19}, set(range(20))], ids=len)
async def test_what_causes_the_failure_is_left(culprits: set[int]) -> None:
    async def fails(events: Sequence[int]) -> bool:
        return culprits <= set(events)

    assert await shrink(range(20), fails, 60) == sorted(culprits)


async def test_all_is_left_when_there_is_no_time() -> None:
    async def fails(events: Sequence[int]) -> bool:
        raise AssertionError("nothing is tried")

    assert await shrink(range(20), fails, 0) == list(range(20))


async def test_all_is_left_if_the_failure_is_not_repeated() -> None:
    async def fails(events: Sequence[int]) -> bool:
        return False

    assert await shrink(range(5), fails, 60) == list(range(5))
