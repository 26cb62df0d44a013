# ruff: noqa: E402
"""The pool of KV cache slots for an accelerator."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import InvalidArgument, ResourceExhausted
from generation_service.models.musicgen.checkpoints.checkpoint import LM_FILE, read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.lm.static_kv_cache import MAX_PROMPT_TOKENS, StaticKvCachePool


@pytest.fixture
def pool(mono: Path) -> StaticKvCachePool:
    config = parse_lm_config(read_checkpoint(mono / LM_FILE))
    return StaticKvCachePool(config, 8, 1503, dtype=torch.float32, device=torch.device("cpu"))


def test_slots_are_limited_and_reused_from_the_lowest(pool: StaticKvCachePool) -> None:
    caches = [pool.reserve(100) for _ in range(8)]
    assert [cache.slot for cache in caches] == list(range(8))
    assert pool.reserved_bytes == pool.limit_bytes
    with pytest.raises(ResourceExhausted, match="all 8 KV caches are in use") as error:
        pool.reserve(100)
    assert error.value.retry_after_seconds
    pool.release(caches[5])
    pool.release(caches[2])
    assert pool.reserve(100).slot == 2, "the lowest free one"


def test_request_too_large_for_a_slot_is_rejected(pool: StaticKvCachePool) -> None:
    with pytest.raises(InvalidArgument, match="prompt: has 513 tokens"):
        pool.reserve(100, MAX_PROMPT_TOKENS + 1)
    with pytest.raises(InvalidArgument, match="duration_seconds"):
        pool.reserve(pool.capacity + 1)
    assert pool.reserved_bytes == 0
