"""Attention over pages, against attention over one row's keys and values at a time."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.kernels import paged_attention  # noqa: E402
from generation_service.models.musicgen.kernels.paged_attention import PAGE_POSITIONS  # noqa: E402
from tests.support.paged_rows import PagedRows, paged_rows  # noqa: E402


def written(rows: PagedRows, row: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first keys and values of a row: [H, length, D] each."""
    heads, size = rows.qkv.shape[2:]
    return tuple(  # type: ignore[return-value]
        pool[rows.table[row].long()].transpose(0, 1).reshape(heads, -1, size)[:, :length]
        for pool in (rows.pages.keys, rows.pages.values)
    )


@pytest.mark.parametrize("spare_pages", [0, 2])
def test_new_position_attends_to_itself_and_all_before(spare_pages: int) -> None:
    rows = paged_rows([0, 1, 31, 32, 95], dtype=torch.float32, kv_dtype=torch.float32, spare=1 + 32 * spare_pages)
    span = rows.table.shape[1] * PAGE_POSITIONS
    attended = paged_attention.append_and_attend(rows.qkv, rows.pages, rows.table, rows.lengths, span)
    for row, length in enumerate(rows.lengths.tolist()):
        query, key, value = rows.qkv[row]
        keys, values = written(rows, row, length + 1)
        assert torch.equal(keys[:, -1], key)
        assert torch.equal(values[:, -1], value)
        weights = (keys @ query[..., None] / 8).softmax(1)  # [H, length, 1]
        torch.testing.assert_close(attended[row], (weights * values).sum(1).flatten(), atol=1e-5, rtol=1e-5)


def test_row_of_length_0_yields_0() -> None:
    rows = paged_rows([0, 3], dtype=torch.float32, kv_dtype=torch.float32)
    attended = paged_attention.attend(rows.qkv[:, 0], rows.pages, rows.table, rows.lengths, 32)
    assert attended[0].eq(0).all()
    assert attended[1].isfinite().all()
    assert attended[1].ne(0).all()


def test_fp8_stores_its_largest_value_for_larger_ones() -> None:
    rows = paged_rows([0], dtype=torch.float32, kv_dtype=torch.float8_e4m3fn)
    rows.qkv[0, 1:, 0, :2] = torch.tensor([1000.0, -1000.0])
    paged_attention.append_and_attend(rows.qkv, rows.pages, rows.table, rows.lengths, 32)
    for stored in written(rows, 0, 1):
        assert stored[0, 0, :2].float().tolist() == [448.0, -448.0]
