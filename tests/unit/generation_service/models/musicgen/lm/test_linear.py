"""Linear layers: a row's result is independent of the other rows, and int8 is close to fp32."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.lm.device_linear import TorchLinear  # noqa: E402
from generation_service.models.musicgen.lm.linear import (  # noqa: E402
    Int8Linear,
    Precision,
    _fbgemm_product,
    _onednn_product,
    build_linear,
)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("outputs", "inputs"), [(1024, 4096), (3072, 1024), (96, 32)])
def test_row_does_not_depend_on_the_other_rows(precision: Precision, outputs: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(1)
    linear = build_linear(torch.randn(outputs, inputs, generator=generator), precision)
    x = torch.randn(64, inputs, generator=generator) * torch.logspace(-3, 3, 64)[:, None]
    everything = linear(x)
    for rows in (1, 2, 3, 4, 6, 8, 12, 16, 31, 32, 48):
        assert torch.equal(linear(x[:rows].contiguous()), everything[:rows]), rows
        assert torch.equal(linear(x[-rows:].contiguous()), everything[-rows:]), rows


def test_int8_is_close_to_fp32_for_rows_of_any_magnitude() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(256, 512, generator=generator)
    x = torch.randn(3, 512, generator=generator) * torch.tensor([[1e-4], [1.0], [1e4]])
    exact = x @ weight.t()
    error = (Int8Linear(weight)(x) - exact).norm(dim=1) / exact.norm(dim=1)
    assert error.max() < 0.02


def test_int8_without_fbgemm_has_the_same_properties() -> None:
    """As on arm64, where torch multiplies by oneDNN."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(-127, 128, (96, 64), dtype=torch.int8, generator=generator)
    scale = torch.rand(96, generator=generator) + 0.5
    x = torch.rand(33, 64, generator=generator) * 2 - 1
    product = _onednn_product(weight, scale)
    everything = product(x)
    torch.testing.assert_close(everything, _fbgemm_product(weight, scale)(x), rtol=1e-2, atol=2.0)
    exact = x @ (weight.float() * scale[:, None]).t()
    assert ((everything - exact).norm() / exact.norm()) < 0.01
    for rows in (1, 2, 7, 16):
        assert torch.equal(product(x[:rows]), everything[:rows]), rows


def test_torch_without_onednn_multiplies_in_plain_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    weight, x = torch.randn(6, 4), torch.randn(3, 4)
    linear = build_linear(weight, "fp32")
    assert isinstance(linear, TorchLinear)
    torch.testing.assert_close(linear(x), x @ weight.t())


def test_int8_row_of_zeros_is_zero_and_a_row_that_is_not_finite_stays_so() -> None:
    linear = Int8Linear(torch.randn(96, 64, generator=torch.Generator().manual_seed(1)))
    x = torch.ones(4, 64)
    x[1], x[2, 5], x[3, 5] = 0, torch.nan, torch.inf
    y = linear(x)
    assert torch.equal(y[1], torch.zeros(96))
    assert torch.equal(linear.add_residual(x, torch.ones(4, 96))[1], torch.ones(96))
    assert torch.equal(y[0], linear(x[:1])[0])
    assert not y[2:].isfinite().any()
