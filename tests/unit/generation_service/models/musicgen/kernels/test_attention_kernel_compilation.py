"""The attention kernel, compiled for GPUs that need not be present."""

from __future__ import annotations

import functools
import re

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("triton", reason="The kernels need Triton")

from generation_service.models.musicgen.kernels import attention_kernel  # noqa: E402
from tests.support.paged_rows import paged_rows  # noqa: E402
from tests.support.triton_kernels import MAX_SHARED_BYTES, Binary, recorded  # noqa: E402

BF16, FP32, FP8 = torch.bfloat16, torch.float32, torch.float8_e4m3fn


@functools.cache
def compiled(
    capability: int, kv_dtype: torch.dtype = BF16, dtype: torch.dtype = BF16, *, is_append: bool = True
) -> Binary:
    rows = paged_rows([300], 16, dtype=dtype, kv_dtype=kv_dtype)
    with recorded() as launches:
        if is_append:
            attention_kernel.append_and_attend(rows.qkv, rows.pages, rows.table, rows.lengths, 320)
        else:
            attention_kernel.attend(rows.qkv[:, 0], rows.pages, rows.table, rows.lengths, 320)
    return launches[0].compile(capability)


def assert_fits(binary: Binary, capability: int) -> None:
    """Four programs fit on one SM, and nothing is spilled."""
    assert binary.local_bytes == 0
    assert binary.registers * binary.threads <= 65536 // 4
    assert binary.shared_bytes <= MAX_SHARED_BYTES[capability] // 4


@pytest.mark.parametrize("capability", [90, 121])
def test_four_programs_fit_on_an_sm(capability: int) -> None:
    assert_fits(compiled(capability), capability)


@pytest.mark.parametrize("kv_dtype", [FP8, FP32])
def test_four_programs_of_another_type_fit_on_an_sm(kv_dtype: torch.dtype) -> None:
    assert_fits(compiled(90, kv_dtype, FP32 if kv_dtype == FP32 else BF16), 90)


def test_four_programs_that_append_nothing_fit_on_an_sm() -> None:
    assert_fits(compiled(90, is_append=False), 90)


def test_fp8_stores_its_largest_value_for_larger_ones() -> None:
    assert "cvt.rn.satfinite.e4m3x2" in compiled(90, FP8).ptx


def test_requests_all_keys_and_values_16_bytes_at_a_time_before_it_uses_any() -> None:
    # 128 positions of 64 bf16, read by 128 threads.
    ptx = compiled(90).ptx
    reads = [match.start() for match in re.finditer(r"@%p\d+ ld\.global\.v4\.b32", ptx)][:16]
    assert len(reads) == 16
    assert not re.search(r"bar\.sync|bra|st\.|fma", ptx[reads[0] : reads[-1]])


def test_splits_count_their_arrival_after_all_their_threads_have_stored() -> None:
    before, _, after = compiled(90).ptx.partition("atom.global.gpu.acq_rel.add")
    assert 0 < before.rindex("st.global") < before.rindex("bar.sync")
    # What other SMs have stored is read past the first-level cache.
    assert "ld.global.cg" in after


def test_one_compiled_kernel_serves_all_batch_sizes_and_lengths() -> None:
    def key(lengths: list[int], max_positions: int) -> object:
        rows = paged_rows(lengths, dtype=BF16, kv_dtype=BF16)
        with recorded() as launches:
            attention_kernel.append_and_attend(rows.qkv, rows.pages, rows.table, rows.lengths, max_positions)
        return launches[0].specialization(90)

    assert key([3], 32) == key([300, 5, 7], 320) == key([500] * 16, 512)
