"""Reservations in a KV memory of limited size."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import ResourceExhausted
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.kv_cache import KvCachePool

SHAPE = LmConfig(
    dim=64,
    num_heads=4,
    num_layers=3,
    hidden_dim=256,
    n_q=4,
    card=64,
    delays=(0, 1, 2, 3),
    max_period=10_000,
    positional_scale=1,
    t5_name="t5-base",
    condition="description",
    channels=1,
    sample_rate_hz=32_000,
    max_duration_seconds=30,
)


@pytest.fixture
def memory() -> KvCachePool:
    """A memory for 128 positions: 4 blocks of 32. A request reserves whole blocks."""
    return KvCachePool(SHAPE, KvCachePool(SHAPE, 0).size_bytes(128, 0))


def test_released_memory_can_be_reserved_again(memory: KvCachePool) -> None:
    for _ in range(3):
        cache = memory.reserve(100)
        assert memory.reserved_bytes == memory.limit_bytes
        memory.release(cache)
        assert memory.reserved_bytes == 0


def test_reservation_without_free_memory_is_resource_exhausted_with_a_retry_time(memory: KvCachePool) -> None:
    memory.reserve(60)
    with pytest.raises(ResourceExhausted) as caught:
        memory.reserve(65)
    assert caught.value.retry_after_seconds
    memory.reserve(64)
