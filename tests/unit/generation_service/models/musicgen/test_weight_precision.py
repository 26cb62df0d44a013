"""The precision `auto` on the GPUs that MusicGen is meant for."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.weight_precision import choose_precision
from tests.support.lm_configs import lm_config

GB10, H200, UNKNOWN = 273.0, 4917.0, 0.0


def config(dim: int, layers: int) -> LmConfig:
    return lm_config(dim, layers, num_heads=dim // 64)


SMALL, MEDIUM, LARGE = config(1024, 24), config(1536, 48), config(2048, 48)


@pytest.mark.parametrize(
    ("model", "bandwidth", "precision", "reason"),
    [
        (
            SMALL,
            GB10,
            "bf16",
            "bf16: in bf16 a step would read 0.72 GB, which takes 2.6 ms at 273 GB/s; int8 is",
        ),
        (
            MEDIUM,
            GB10,
            "int8",
            "int8: in bf16 a step would read 3.20 GB, which takes 11.7 ms at 273 GB/s; int8 is",
        ),
        (LARGE, GB10, "int8", "int8: in bf16 a step would read 5.67 GB, which takes 20.8 ms at 273 GB/s; int8 is"),
        (LARGE, H200, "bf16", "bf16: in bf16 a step would read 5.67 GB, which takes 1.2 ms at 4917 GB/s; int8 is"),
        (LARGE, UNKNOWN, "bf16", "bf16: a step reads 5.67 GB; the GPU does not report its memory bandwidth"),
    ],
)
def test_int8_where_bf16_takes_more_than_half_of_real_time(
    model: LmConfig, bandwidth: float, precision: str, reason: str
) -> None:
    chosen, why = choose_precision(model, bandwidth)
    assert chosen == precision
    assert why.startswith(reason)
