"""Sampling: guidance, temperature, top-k, top-p, and its independence of what else is in the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from generation_service.models.base import GenerationParameters  # noqa: E402
from generation_service.models.musicgen import sampling  # noqa: E402
from generation_service.models.musicgen.sampling import (  # noqa: E402
    TOP_P_DISABLED,
    SamplingTensors,
    rank,
    sample,
    sample_checked,
)
from tests.support.sampled_codes import assert_distributed, parameters_of, request  # noqa: E402

NAN, INF = math.nan, math.inf


def draw(logits: Sequence[float], count: int = 300, **options: float) -> Tensor:
    """`count` samples of one request from these logits: int64 [count]."""
    card = len(logits)
    parameters = parameters_of([request(**options)] * count, card)
    both = torch.tensor(logits).expand(count, 2, 1, card)
    return sample(both, parameters, torch.arange(count), max_top_k=card, uses_top_p=True)[:, 0]


def kept(logits: Sequence[float], **options: float) -> set[int]:
    return set(draw(logits, **options).tolist())


PROBABILITIES = [0.4, 0.3, 0.2, 0.1]
LOGITS = [math.log(probability) for probability in PROBABILITIES]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 0}, {0}),
        ({"top_k": 1}, {0}),
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 0}, {0, 1, 2, 3}),
        ({"top_k": 0, "top_p": 0.65}, {0, 1}),
        ({"top_k": 0, "top_p": 0.75}, {0, 1, 2}),
        ({"top_k": 0, "top_p": 1}, {0, 1, 2, 3}),
        ({"top_k": 0, "top_p": 0.5}, {0, 1}),
        ({"top_k": 2, "top_p": 0.5}, {0}),
    ],
)
def test_top_k_and_top_p_keep_the_likeliest_codes(options: dict[str, float], expected: set[int]) -> None:
    """top_p goes by the probabilities among the top k: of 0.4 and 0.3, the first has 4/7."""
    assert kept(LOGITS, **options) == expected
    order = [2, 0, 3, 1]
    assert kept([LOGITS[code] for code in order], **options) == {order.index(code) for code in expected}


def test_lower_code_comes_first_of_equal_logits() -> None:
    logits = [0.0, 1.0, 1.0, 1.0, 0.0]
    assert kept(logits, temperature=0) == {1}
    assert kept(logits, top_k=2) == {1, 2}
    assert kept(logits, top_k=4) == {0, 1, 2, 3}
    assert kept([1.0, 1.0, 1.0, 1.0], top_k=0, top_p=0.6) == {0, 1, 2}


def test_lowest_code_of_equal_scores_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "gumbel_noise", lambda *_: torch.tensor(1e9))
    assert kept([0.0, 1.0, 2.0, 1.0], top_k=3) == {1}, "1.0, 2.0 and 1.0 vanish in the noise"


def test_rank_orders_all_floats() -> None:
    logits = torch.tensor([INF, 3e38, 1.0, 1e-40, 0.0, -1e-40, -1.0, -3e38, -INF])
    assert rank(logits).diff().lt(0).all()
    assert rank(logits.flip(0)).diff().gt(0).all()


def test_guidance_scale_extrapolates_from_unconditional_to_conditional() -> None:
    logits = torch.tensor([[[0.0, 1.0, 0.9]], [[2.0, 1.5, 0.5]]])  # conditional, unconditional
    expected = {0.0: 0, 1.0: 1, 10.0: 2}
    parameters = parameters_of([request(temperature=0, guidance_scale=scale) for scale in expected], 3)
    codes = sample(logits.expand(3, 2, 1, 3), parameters, torch.zeros(3).long(), max_top_k=3, uses_top_p=False)
    assert codes[:, 0].tolist() == list(expected.values())


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 0.0), (0.7, 5, 0.0), (1.5, 0, 0.8), (1.0, 6, 0.7), (1.0, 250, 0.0)]
)
def test_codes_are_distributed_as_the_softmax(temperature: float, top_k: int, top_p: float) -> None:
    logits = torch.randn(12, generator=torch.Generator().manual_seed(2)).tolist()
    codes = draw(logits, 20_000, temperature=temperature, top_k=top_k, top_p=top_p)
    assert_distributed(codes, logits, temperature, top_k, top_p)


def test_codes_of_a_request_are_the_same_in_any_batch() -> None:
    requests = [
        request(seed=1),
        request(seed=2, temperature=0),
        request(seed=3, top_k=0, top_p=0.9),
        request(seed=2**63 - 1, top_k=3, temperature=0.6, guidance_scale=5.5),
        request(seed=5, top_k=0),
    ]
    # bf16 has many equal logits, also at the threshold.
    logits = torch.randn(5, 2, 4, 512, generator=torch.Generator().manual_seed(3)).bfloat16().float()
    counts = torch.tensor([0, 9, 1500, 3, 77])
    alone = [
        sample(
            logits[row, None],
            parameters_of([requests[row]], 512),
            counts[row, None],
            max_top_k=requests[row].top_k or 512,
            uses_top_p=requests[row].top_p > 0,
        )[0]
        for row in range(5)
    ]
    for batch in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 2], [3, 0, 3]):
        codes = sample(
            logits[batch],
            parameters_of([requests[row] for row in batch], 512),
            counts[batch],
            max_top_k=512,
            uses_top_p=True,
        )
        assert torch.equal(codes, torch.stack([alone[row] for row in batch])), batch


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_logits_that_are_not_finite_are_reported_and_yield_codes(value: float) -> None:
    logits = torch.randn(3, 2, 2, 16, generator=torch.Generator().manual_seed(4))
    parameters = parameters_of([request(seed=seed, top_p=top_p) for seed, top_p in enumerate((0.5, 0.0, 0.5))], 16)
    clean, is_finite = sample_checked(logits, parameters, torch.zeros(3).long(), max_top_k=16, uses_top_p=True)
    assert is_finite.all()
    logits[0, 0, 1, 5] = value
    logits[1, 1, 0] = value
    codes, is_finite = sample_checked(logits, parameters, torch.zeros(3).long(), max_top_k=16, uses_top_p=True)
    assert is_finite.tolist() == [[True, False], [False, True], [True, True]]
    assert torch.equal(codes[is_finite], clean[is_finite])
    assert codes.ge(0).logical_and(codes < 16).all()


def test_parameters_become_contiguous_tensors_with_limits_that_hold() -> None:
    requests = [request(top_k=0), request(top_k=99, top_p=0.25), request(top_k=3, temperature=0.5, guidance_scale=2)]
    parameters = SamplingTensors.from_parameters(requests, 16)
    assert parameters.top_k.tolist() == [16, 16, 3]
    assert parameters.top_p.tolist() == [TOP_P_DISABLED, 0.25, TOP_P_DISABLED]
    assert parameters.temperature.tolist() == [1.0, 1.0, 0.5]
    assert parameters.guidance_scale.tolist() == [3.0, 3.0, 2.0]
    assert [parameters.seed.dtype, parameters.top_k.dtype, parameters.top_p.dtype] == [
        torch.int64,
        torch.int64,
        torch.float32,
    ]
    assert all(getattr(parameters, name).is_contiguous() for name in SamplingTensors.__slots__)


def test_request_keeps_all_its_seed() -> None:
    assert parameters_of([GenerationParameters("", 1, 2**63 - 1)], 4).seed.tolist() == [2**63 - 1]
