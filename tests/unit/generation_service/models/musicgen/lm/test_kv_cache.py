# ruff: noqa: E402
"""The pool of KV blocks on the CPU: what requests reserve, what the process really uses, and what is given back."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import ResourceExhausted
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.lm.kv_cache import KvCachePool
from tests.support.lm_configs import lm_config

SHAPE = lm_config(1024, 8, card=64)
BLOCK_BYTES = 8 * 2 * 64 * 1024 * 2 * 4
"""fp32 keys and values of 64 positions and 2 rows in 8 layers."""
PROMPT_BYTES = 8 * 16 * 1024 * 2 * 4
"""Those of 16 tokens, which only one row has."""
STATUS = Path("/proc/self/statm")


@pytest.fixture
def pool() -> KvCachePool:
    """Memory for 4 blocks."""
    return KvCachePool(SHAPE, 4 * BLOCK_BYTES)


def test_request_pays_for_whole_blocks_of_its_own_length(pool: KvCachePool) -> None:
    assert pool.size_bytes(Reservation(1)) == pool.size_bytes(Reservation(64)) == BLOCK_BYTES
    assert pool.size_bytes(Reservation(1503)) == 24 * BLOCK_BYTES
    assert pool.size_bytes(Reservation(65, 17)) == 2 * BLOCK_BYTES + 2 * PROMPT_BYTES
    quantised = KvCachePool(SHAPE, 0, is_quantized=True)
    assert quantised.size_bytes(Reservation(1503, 12)) < 0.31 * pool.size_bytes(Reservation(1503, 12))


def test_released_memory_can_be_reserved_again(pool: KvCachePool) -> None:
    for _ in range(3):
        cache = pool.reserve(Reservation(200))
        assert pool.reserved_bytes == pool.limit_bytes
        pool.release(cache)
        assert pool.reserved_bytes == 0


def test_reservation_without_free_memory_is_resource_exhausted_with_a_retry_time(pool: KvCachePool) -> None:
    pool.reserve(Reservation(60))
    with pytest.raises(ResourceExhausted, match="KV cache") as error:
        pool.reserve(Reservation(3 * 64 + 1))
    assert error.value.retry_after_seconds
    with pytest.raises(ResourceExhausted):
        pool.reserve(Reservation(3 * 64, 1))
    pool.reserve(Reservation(3 * 64))


def test_requests_share_no_block_and_the_lowest_free_blocks_are_used_first(pool: KvCachePool) -> None:
    first, second = pool.reserve(Reservation(64)), pool.reserve(Reservation(128))
    assert sorted(block for cache in (first, second) for row in cache.rows for block in row.blocks) == list(range(6))
    pool.release(first)
    assert [row.blocks for row in pool.reserve(Reservation(1)).rows] == [[0], [1]]


def test_request_pays_for_each_branch_and_gives_all_back(pool: KvCachePool) -> None:
    """Also those that its last window did not have."""
    reservation = Reservation(60, 5, branches=3, has_negative=True)
    assert pool.size_bytes(reservation) == 2 * BLOCK_BYTES + 4 * PROMPT_BYTES
    pool.reserve(Reservation(1))  # While nothing is reserved, everything is free.
    for _ in range(3):
        cache = pool.reserve(reservation)
        rows = [*cache.branches, cache.negative]
        assert [row.blocks for row in rows] == [[2], [3], [4], [5]]
        assert [row.prompt_blocks for row in rows] == [[0], [1], [2], [3]]
        assert [*cache.rows] == [cache.branches[0], cache.negative]
        cache.begin_window(2)
        assert [*cache.rows] == [*cache.branches[:2], cache.negative]
        cache.begin_window(1)
        pool.release(cache)
    without = pool.reserve(Reservation(60, 5, branches=3))
    assert [*without.negative.prompt_blocks] == []


def test_failed_allocation_reserves_nothing() -> None:
    pool = KvCachePool(SHAPE, 1 << 60)
    with pytest.raises(MemoryError, match="failed to allocate"):
        pool.reserve(Reservation(1))
    assert pool.reserved_bytes == 0


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc/self/statm")
@pytest.mark.parametrize("is_quantized", [False, True])
def test_process_uses_memory_for_written_blocks_only_until_the_last_request_ends(is_quantized: bool) -> None:
    pool = KvCachePool(SHAPE, 8 << 30, is_quantized=is_quantized)
    block = pool.size_bytes(Reservation(64))

    def resident_bytes() -> int:
        return int(STATUS.read_text().split()[1]) * 4096

    warm_up = pool.reserve(Reservation(1))
    warm_up.prepare(1)
    pool.release(warm_up)
    before = resident_bytes()
    caches = [pool.reserve(Reservation(1503)) for _ in range(2)]
    assert resident_bytes() - before < block / 2, "reserved, but not written"
    for cache in caches:
        cache.prepare(2 * 64)
    assert 3 * block < resident_bytes() - before < 7 * block
    pool.release(caches[0])
    pool.release(caches[1])
    assert resident_bytes() - before < block, "given back"
