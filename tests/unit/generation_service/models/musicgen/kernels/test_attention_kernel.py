"""The attention kernel, run by Triton's interpreter, against its definition in PyTorch."""

from __future__ import annotations

import random

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("triton", reason="The kernels need Triton")

from generation_service.models.musicgen.kernels import attention_kernel, paged_attention  # noqa: E402
from tests.support.paged_rows import PagedRows, paged_rows  # noqa: E402
from tests.support.triton_kernels import interpreted  # noqa: E402

FP8 = torch.float8_e4m3fn
EDGES = [0, 1, 30, 31, 32, 33, 126, 127, 128, 129, 255, 256, 257]
WINDOW = 1504


def append(rows: PagedRows, max_positions: int) -> torch.Tensor:
    with interpreted():
        return attention_kernel.append_and_attend(rows.qkv, rows.pages, rows.table, rows.lengths, max_positions)


def assert_equals_definition(rows: PagedRows, max_positions: int) -> None:
    copy = rows.copy()
    attended = append(rows, max_positions)
    expected = paged_attention.append_and_attend(
        copy.qkv.float(), copy.pages, copy.table, copy.lengths, rows.table.shape[1] * 32
    )
    torch.testing.assert_close(attended, expected, atol=2e-6, rtol=2e-6)
    assert all(map(torch.equal, rows.page_bits(), copy.page_bits()))


def test_equals_the_definition_at_page_and_split_edges() -> None:
    assert_equals_definition(paged_rows(EDGES, 1, dtype=torch.bfloat16, kv_dtype=torch.bfloat16), 288)


@pytest.mark.parametrize(
    ("dtype", "kv_dtype"),
    [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, FP8)],
)
def test_equals_the_definition_for_each_type(dtype: torch.dtype, kv_dtype: torch.dtype) -> None:
    assert_equals_definition(paged_rows([31, 129], dtype=dtype, kv_dtype=kv_dtype), 160)


@pytest.mark.parametrize(
    ("heads", "length"), [(16, 257), (24, 129), (32, 33), (1, WINDOW - 1)], ids=["small", "medium", "large", "longest"]
)
def test_equals_the_definition_for_each_model(heads: int, length: int) -> None:
    rows = paged_rows([length], heads, dtype=torch.bfloat16, kv_dtype=torch.bfloat16)
    assert_equals_definition(rows, rows.table.shape[1] * 32)


def test_rows_longer_than_one_round_of_combining() -> None:
    rows = paged_rows([2500], 1, 16, dtype=torch.float32, kv_dtype=torch.float32)
    rows.pages.keys[rows.table[0, 70:].long()] *= 3  # The second round has the highest score.
    assert_equals_definition(rows, 2528)


def test_attends_without_appending() -> None:
    rows = paged_rows([0, 1, 32, 128, 129, 300], dtype=torch.bfloat16, kv_dtype=torch.bfloat16, spare=0)
    before = rows.copy()
    with interpreted():
        attended = attention_kernel.attend(rows.qkv[:, 0], rows.pages, rows.table, rows.lengths, 320)
    expected = paged_attention.attend(rows.qkv[:, 0].float(), rows.pages, rows.table, rows.lengths, 320)
    torch.testing.assert_close(attended, expected, atol=2e-6, rtol=2e-6)
    assert attended[0].eq(0).all()
    assert all(map(torch.equal, rows.page_bits(), before.page_bits()))


def test_pool_may_have_more_than_2_to_the_31_elements() -> None:
    heads = 16
    count = 2**31 // (heads * 32 * 64) + 3
    pool = torch.empty(count, heads, 32, 64, dtype=FP8)  # The operating system provides only what is written.
    table = torch.tensor([[count - 1, count - 3]], dtype=torch.int32)
    pool[[-1, -3]] = torch.randn(2, heads, 32, 64, generator=torch.Generator().manual_seed(1)).to(FP8)
    pages, lengths, query = paged_attention.LayerPages(pool, pool), torch.tensor([40]), torch.ones(1, heads, 64)
    with interpreted():
        attended = attention_kernel.attend(query, pages, table, lengths, 64)
    torch.testing.assert_close(attended, paged_attention.attend(query, pages, table, lengths, 64), atol=2e-6, rtol=2e-6)


def test_fp8_stores_its_largest_value_for_larger_ones() -> None:
    rows = paged_rows([0], dtype=torch.float32, kv_dtype=FP8)
    rows.qkv[0, 1:, 0, :2] = torch.tensor([1000.0, -1000.0])
    assert_equals_definition(rows, 32)


def test_row_is_the_same_alone_in_any_row_of_any_batch_and_for_any_max_positions() -> None:
    rows = paged_rows([5, 128, 200, 300], 1, dtype=torch.bfloat16, kv_dtype=torch.bfloat16)
    alone = [append(rows.select([row]), 320)[0] for row in range(4)]
    batches = [([0, 1, 2, 3], 320), ([3, 2, 1, 0], WINDOW), ([2, 3], 512), ([1, 3, 0], 640), ([1, 0], 224)]
    for batch, max_positions in batches:
        attended = append(rows.select(batch), max_positions)
        assert all(torch.equal(attended[i], alone[row]) for i, row in enumerate(batch)), batch


def test_result_does_not_depend_on_which_split_finishes_last() -> None:
    rows = paged_rows([128, 200, 500], 1, dtype=torch.bfloat16, kv_dtype=torch.bfloat16)
    expected = append(rows, 512)
    for seed in range(2):
        with interpreted(order=random.Random(seed)):
            attended = attention_kernel.append_and_attend(rows.qkv, rows.pages, rows.table, rows.lengths, 512)
        assert torch.equal(attended, expected)
    assert attention_kernel._arrivals(rows.pages, 3).eq(0).all()


def test_rows_may_be_given_by_their_slots() -> None:
    rows = paged_rows([40, 33, 150, 2, 7, 129], dtype=torch.bfloat16, kv_dtype=torch.bfloat16)
    chosen = rows.select([4, 5, 0, 1])
    copy = chosen.copy()
    table, positions, slots = rows.table.view(3, 2, -1), rows.lengths.view(3, 2), torch.tensor([2, 0])
    expected = append(copy, 160)
    with interpreted():
        attended = attention_kernel.append_and_attend(chosen.qkv, rows.pages, table, positions, 160, slots)
        read = attention_kernel.attend(chosen.qkv[:, 0], rows.pages, table, positions, 160, slots)
        same_length = attention_kernel.attend(
            chosen.qkv[:, 0], rows.pages, table, positions[:, :1].expand(-1, 2), 160, slots
        )
    assert torch.equal(attended, expected)
    assert all(map(torch.equal, rows.page_bits(), copy.page_bits()))
    defined = paged_attention.attend(chosen.qkv[:, 0].float(), rows.pages, table, positions, 160, slots)
    torch.testing.assert_close(read, defined, atol=2e-6, rtol=2e-6)
    assert torch.equal(same_length[[0, 2]], read[[0, 2]])
    assert not torch.equal(same_length[[1, 3]], read[[1, 3]])


def test_rows_that_fill_up_a_batch_only_write_to_page_0() -> None:
    rows = paged_rows([0, 40, 150, 0, 0], dtype=torch.bfloat16, kv_dtype=torch.bfloat16)
    rows.table[[0, 3, 4]] = 0
    copy = rows.copy()
    attended = append(rows, 160)
    others = append(copy.select([1, 2]), 160)
    assert torch.equal(attended[[1, 2]], others)
    assert all(torch.equal(x[1:], y[1:]) for x, y in zip(rows.page_bits(), copy.page_bits(), strict=True))
    assert attended.isfinite().all()


def test_query_may_be_a_part_of_a_larger_tensor() -> None:
    rows = paged_rows([3, 70], dtype=torch.bfloat16, kv_dtype=torch.bfloat16)
    expected = append(rows.copy(), 96)
    wide = torch.zeros(2, 3, 2, 128, dtype=torch.bfloat16)
    wide[..., :64] = rows.qkv
    with interpreted():
        attended = attention_kernel.append_and_attend(wide[..., :64], rows.pages, rows.table, rows.lengths, 96)
    assert torch.equal(attended, expected)


@pytest.mark.parametrize("name", ["keys", "values", "table", "positions"])
def test_other_tensors_must_be_contiguous(name: str) -> None:
    rows = paged_rows([3, 70], dtype=torch.bfloat16, kv_dtype=torch.bfloat16)
    tensors = {"keys": rows.pages.keys, "values": rows.pages.values, "table": rows.table, "positions": rows.lengths}
    tensors[name] = torch.stack([tensors[name], tensors[name]], -1)[..., 0]
    pages = paged_attention.LayerPages(tensors["keys"], tensors["values"])
    with pytest.raises(ValueError, match=f"^{name} must be contiguous, but has the strides"):
        attention_kernel.append_and_attend(rows.qkv, pages, tensors["table"], tensors["positions"], 96)


def test_counters_are_not_made_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = paged_rows([3], dtype=torch.bfloat16, kv_dtype=torch.bfloat16)
    capturing = [False]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing[0])
    counters = attention_kernel._arrivals(rows.pages, 2)
    capturing[0] = True
    assert attention_kernel._arrivals(rows.pages, 2) is counters
    with pytest.raises(RuntimeError, match="before it is captured"):
        attention_kernel._arrivals(rows.pages, 4)
