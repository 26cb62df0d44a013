"""What a KV memory of bounded size takes in: now, later."""

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
    """Room for 128 positions: 4 blocks of 32, of which a request takes whole ones."""
    return KvCachePool(SHAPE, KvCachePool(SHAPE, 0).size_bytes(128, 0))


def test_all_of_it_can_be_reserved_again_and_again(memory: KvCachePool) -> None:
    for _ in range(3):
        cache = memory.reserve(100)
        assert memory.reserved_bytes == memory.limit_bytes
        memory.release(cache)
        assert memory.reserved_bytes == 0


def test_what_fits_once_others_have_gone_is_asked_to_come_back(memory: KvCachePool) -> None:
    memory.reserve(60)
    with pytest.raises(ResourceExhausted) as refused:
        memory.reserve(65)
    assert refused.value.retry_after_seconds
    memory.reserve(64)
