"""Products of rows: right, and each independent of the other rows."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.codec.row_products import HalfProduct, PackedProduct, PlainProduct  # noqa: E402


@pytest.mark.parametrize(("outputs", "inputs"), [(4096, 1024), (32, 192), (7, 64), (256, 1536)])
def test_a_row_has_the_same_result_in_any_batch(outputs: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator) * inputs**-0.5
    bias = torch.randn(outputs, generator=generator)
    x = torch.randn(3, 40, inputs, generator=generator)
    product = PackedProduct(weight, bias)
    together = product(x)
    torch.testing.assert_close(together, PlainProduct(weight, bias)(x), atol=1e-5, rtol=0)
    for rows in (1, 2, 3, 7, 16, 39):
        assert torch.equal(product(x[1, :rows]), together[1, :rows])


def test_half_product_rounds_operands_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(48, 64, generator=generator), torch.randn(48, generator=generator)
    x = torch.randn(2, 5, 64, generator=generator)
    y = HalfProduct(weight, bias)(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), x.half().double() @ weight.half().double().t() + bias, atol=1e-4, rtol=0)
    assert (y - (x @ weight.t() + bias)).abs().max() > 1e-3
