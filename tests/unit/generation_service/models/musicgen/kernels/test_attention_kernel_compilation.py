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
    capability: int,
    kv_dtype: torch.dtype = BF16,
    dtype: torch.dtype = BF16,
    *,
    is_append: bool = True,
    by_slot: bool = True,
    pdl: bool = False,
) -> Binary:
    rows = paged_rows([300, 300], 16, dtype=dtype, kv_dtype=kv_dtype)
    table, lengths, slots = rows.table, rows.lengths, None
    if by_slot:
        table, lengths, slots = table[None], lengths[None], torch.tensor([0])
    with recorded() as launches:
        if is_append:
            attention_kernel.append_and_attend(rows.qkv, rows.pages, table, lengths, 320, slots, pdl=pdl)
        else:
            attention_kernel.attend(rows.qkv[:, 0], rows.pages, table, lengths, 320, slots, pdl=pdl)
    assert launches[0].kwargs["launch_pdl"] == pdl
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


@pytest.mark.parametrize("by_slot", [False, True])
def test_four_programs_that_append_nothing_fit_on_an_sm(by_slot: bool) -> None:
    assert_fits(compiled(90, is_append=False, by_slot=by_slot), 90)


@pytest.mark.parametrize("capability", [90, 121])
def test_four_programs_that_are_launched_early_fit_on_an_sm(capability: int) -> None:
    assert_fits(compiled(capability, pdl=True), capability)


@pytest.mark.parametrize("is_append", [True, False])
def test_an_early_launch_asks_for_what_earlier_steps_wrote_before_it_waits(is_append: bool) -> None:
    order = memory_order(compiled(90, is_append=is_append, pdl=True))
    assert order[0] == "griddepcontrol.launch_dependents"
    waits = [index for index, name in enumerate(order) if name == "griddepcontrol.wait"]
    assert len(waits) == 2, "programs without positions wait, too, before they end"
    before, after = order[: waits[-1]], order[waits[-1] :]
    # 128 positions of 64 bf16, read by 128 threads, 16 bytes at a time: 8 loads of keys and 8 of values.
    assert before.count("ld.global.v4") == 16
    assert "st.global" not in before
    assert "ld.global" in after, "the query"


def test_an_early_launch_within_a_prefill_waits_before_it_reads_anything() -> None:
    order = memory_order(compiled(90, is_append=False, by_slot=False, pdl=True))
    assert order[:2] == ["griddepcontrol.launch_dependents", "griddepcontrol.wait"]


def memory_order(binary: Binary) -> list[str]:
    return re.findall(r"griddepcontrol\.\w+|(?:ld|st)\.global(?:\.v4)?", binary.ptx)


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
