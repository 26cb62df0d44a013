"""The pages of the KV cache: who has how many, and what a full batch needs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import ResourceExhausted  # noqa: E402
from generation_service.models.musicgen.code_generator import Reservation  # noqa: E402
from generation_service.models.musicgen.resident.page_pool import PagePool, count_pages, page_bytes  # noqa: E402
from tests.support.lm_configs import SMALL, lm_config  # noqa: E402

CPU = torch.device("cpu")
TINY = lm_config(8, 2, num_heads=2)


def test_128_requests_of_30_seconds_fit_into_45_gb() -> None:
    per_request = count_pages(Reservation(1503, 64)) * page_bytes(SMALL, torch.bfloat16)
    assert 37e9 < 128 * per_request < 45e9


def test_short_request_takes_few_pages() -> None:
    pool = PagePool(TINY, 200, torch.float32, CPU)
    long, short = pool.size_bytes(Reservation(1503, 12)), pool.size_bytes(Reservation(53, 12))
    assert (long, short) == (95 * pool.limit_bytes // 200, 5 * pool.limit_bytes // 200)
    pages = pool.reserve(Reservation(53, 12))
    assert pages.rows.shape == (2, 2)
    assert pages.texts.shape == (2, 1)
    assert pool.reserved_bytes == short
    pool.release(pages)
    assert pool.reserved_bytes == 0


def test_requests_share_no_page_and_none_has_the_scratch_page() -> None:
    pool = PagePool(TINY, 20, torch.float32, CPU)
    held = [pool.reserve(Reservation(65, 40)), pool.reserve(Reservation(1, 0)), pool.reserve(Reservation(32, 64))]
    numbers = [number for pages in held for number in (*pages.rows.ravel(), *pages.texts[pages.texts > 0])]
    assert len(set(numbers)) == len(numbers) == 8 + 2 + 4
    assert 0 not in numbers
    assert max(numbers) < len(pool.layers[0].keys)
    pool.release(held[1])
    assert set(pool.reserve(Reservation(32, 0)).rows.ravel()) == set(held[1].rows.ravel()), "freed pages are used again"


def test_request_that_exceeds_the_free_pages_takes_none() -> None:
    pool = PagePool(TINY, 5, torch.float32, CPU)
    pages = pool.reserve(Reservation(32, 0))
    with pytest.raises(ResourceExhausted, match=r"KV cache of .* are in use") as error:
        pool.reserve(Reservation(33, 0))
    assert error.value.reason == "KV_MEMORY"
    assert error.value.retry_after_seconds
    assert pool.reserved_bytes == pool.size_bytes(Reservation(32, 0))
    pool.release(pages)
    pool.reserve(Reservation(64, 1))
    assert pool.reserved_bytes == pool.limit_bytes
