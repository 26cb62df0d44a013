"""The pool that bounds the memory of all KV caches on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import ResourceExhausted
from generation_service.models.musicgen.checkpoints.checkpoint import LM_FILE, read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.lm.kv_cache import KvCachePool


def test_pool_rejects_what_exceeds_its_limit_and_reuses_released_memory(mono: Path) -> None:
    config = parse_lm_config(read_checkpoint(mono / LM_FILE))
    pool = KvCachePool(config, limit_bytes=3 * 4 * 2 * 2 * 64 * 128)  # 3 layers, fp32, k and v, 2 rows, dim 64
    cache = pool.reserve(60)
    with pytest.raises(ResourceExhausted, match="KV cache") as error:
        pool.reserve(65)  # In blocks of 32 positions, this takes 96, and the first cache takes 64.
    assert error.value.retry_after_seconds
    pool.release(pool.reserve(64))
    pool.release(cache)
    assert pool.reserved_bytes == 0
    pool.release(pool.reserve(128))
