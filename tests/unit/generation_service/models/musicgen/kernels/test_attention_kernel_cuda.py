"""The attention kernel on a GPU: against its definition, in captured graphs, and its independence of the batch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("triton", reason="The kernels need Triton")

from generation_service.models.musicgen.kernels import attention_kernel, paged_attention  # noqa: E402
from tests.support.paged_rows import PagedRows, paged_rows  # noqa: E402

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

LENGTHS = [0, 1, 31, 32, 33, 126, 127, 128, 129, 255, 256, 257, 500, 1023, 1502]
WINDOW = 1504


def append(rows: PagedRows, max_positions: int = WINDOW) -> torch.Tensor:
    return attention_kernel.append_and_attend(rows.qkv, rows.pages, rows.table, rows.lengths, max_positions)


@pytest.mark.parametrize(
    ("dtype", "kv_dtype"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        pytest.param(
            torch.bfloat16,
            torch.float8_e4m3fn,
            marks=pytest.mark.skipif(
                torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9), reason="no fp8 e4m3"
            ),
        ),
    ],
)
@pytest.mark.parametrize("heads", [16, 24, 32])
def test_equals_the_definition(heads: int, dtype: torch.dtype, kv_dtype: torch.dtype) -> None:
    cpu = paged_rows(LENGTHS, heads, dtype=dtype, kv_dtype=kv_dtype)
    rows = cpu.to("cuda")
    for _ in range(2):  # The second time, the counters must be as they were.
        attended = append(rows)
    expected = paged_attention.append_and_attend(cpu.qkv.float(), cpu.pages, cpu.table, cpu.lengths, WINDOW)
    torch.testing.assert_close(attended.cpu(), expected, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(x.cpu(), y) for x, y in zip(rows.page_bits(), cpu.page_bits(), strict=True))


def test_row_is_the_same_alone_in_any_row_of_any_batch_and_for_any_max_positions() -> None:
    rows = paged_rows(LENGTHS, 16, dtype=torch.bfloat16, kv_dtype=torch.bfloat16).to("cuda")
    alone = [append(rows.select([row])) for row in range(len(LENGTHS))]
    for batch in range(1, len(LENGTHS) + 1):
        for first in range(len(LENGTHS)):
            chosen = [(first + i) % len(LENGTHS) for i in range(batch)]
            longest = max(LENGTHS[row] for row in chosen) + 1
            attended = append(rows.select(chosen), -(-longest // 256) * 256 if longest <= 1280 else WINDOW)
            assert torch.equal(attended, torch.cat([alone[row] for row in chosen])), chosen


def test_graph_is_replayed_for_growing_rows() -> None:
    cpu = paged_rows([100, 254, 380], 16, dtype=torch.bfloat16, kv_dtype=torch.bfloat16, spare=10)
    rows = cpu.to("cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        append(rows, 512)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        attended = append(rows, 512)
    for _ in range(8):
        graph.replay()
        expected = paged_attention.append_and_attend(cpu.qkv.float(), cpu.pages, cpu.table, cpu.lengths, 384)
        torch.testing.assert_close(attended.cpu(), expected, atol=1e-5, rtol=1e-5)
        rows.lengths.add_(1)
        cpu.lengths.add_(1)
