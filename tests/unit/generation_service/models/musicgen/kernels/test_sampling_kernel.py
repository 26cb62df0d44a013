"""The sampling kernel, run by Triton's interpreter, against its definition in PyTorch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
triton = pytest.importorskip("triton", reason="The kernels need Triton")

import triton.language as tl  # noqa: E402
from torch import Tensor  # noqa: E402

from generation_service.models.base import GenerationParameters  # noqa: E402
from generation_service.models.musicgen import sampling  # noqa: E402
from generation_service.models.musicgen.kernels import sampling_kernel  # noqa: E402
from generation_service.models.musicgen.kernels.sampling_kernel import _gumbel_noise, _random_words  # noqa: E402
from generation_service.models.musicgen.philox import gumbel_noise, philox  # noqa: E402
from tests.support.sampled_codes import assert_distributed, parameters_of, request  # noqa: E402
from tests.support.triton_kernels import MAX_SHARED_BYTES, interpreted, recorded  # noqa: E402

NAN, INF = math.nan, math.inf

REQUESTS = [
    request(seed=1),
    request(seed=2, temperature=0),
    request(seed=2**63 - 1, top_k=0, top_p=0.9, guidance_scale=1),
    request(seed=4, top_k=1),
    request(seed=5, top_k=40, top_p=0.3, temperature=0.6),
]
COUNTS = [0, 1500, 3, 2**31 - 1, 77]


def logits_of(requests: int, codebooks: int, card: int) -> Tensor:
    """As they come from bf16 weights: many are equal, also where top-k ends."""
    shape = (requests, 2, codebooks, card)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).bfloat16().float()


def sample(logits: Tensor, requests: Sequence[GenerationParameters], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    parameters = parameters_of(requests, logits.shape[-1])
    with interpreted():
        return sampling_kernel.sample_checked(
            logits, parameters, torch.tensor(counts), max_top_k=logits.shape[-1], uses_top_p=True
        )


def define(logits: Tensor, requests: Sequence[GenerationParameters], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    parameters = parameters_of(requests, logits.shape[-1])
    return sampling.sample_checked(
        logits, parameters, torch.tensor(counts), max_top_k=logits.shape[-1], uses_top_p=True
    )


@triton.jit
def _noise(seed, counts, codebook, words, noise, codes: tl.constexpr):  # type: ignore[no-untyped-def]
    code = tl.arange(0, codes)
    tl.store(words + code, _random_words(tl.load(seed), tl.load(counts), codebook, code).to(tl.int64))
    tl.store(noise + code, _gumbel_noise(tl.load(seed), tl.load(counts), codebook, code))


@pytest.mark.parametrize(("seed", "sample_count", "codebook"), [(0, 0, 0), (2**40 + 3, 1503, 7), (2**63 - 1, 2**31, 1)])
def test_noise_is_made_of_the_same_random_words(seed: int, sample_count: int, codebook: int) -> None:
    words, noise = torch.zeros(2048, dtype=torch.int64), torch.zeros(2048)
    seeds, counts = torch.tensor([seed]), torch.tensor([sample_count])
    with interpreted():
        _noise[1,](seeds, counts, codebook, words, noise, codes=2048)
    codes, codebooks, zero = torch.arange(2048), torch.tensor(codebook), torch.tensor(0)
    key = (torch.tensor(seed & 0xFFFFFFFF), torch.tensor(seed >> 32))
    assert torch.equal(words, philox((codes, codebooks, counts, zero), key)[0])
    torch.testing.assert_close(noise, gumbel_noise(seeds, counts, codebooks, codes), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("requests", "codebooks"), [(5, 4), (1, 8)], ids=["mono", "stereo"])
def test_equals_the_definition(requests: int, codebooks: int) -> None:
    logits = logits_of(requests, codebooks, 2048)
    codes, is_finite = sample(logits, REQUESTS[:requests], COUNTS[:requests])
    assert torch.equal(codes, define(logits, REQUESTS[:requests], COUNTS[:requests])[0])
    assert is_finite.all()


def test_number_of_codes_need_not_be_a_power_of_2() -> None:
    logits = logits_of(5, 2, 11) - 100
    assert torch.equal(sample(logits, REQUESTS, COUNTS)[0], define(logits, REQUESTS, COUNTS)[0])


def test_lower_code_comes_first_of_equal_logits() -> None:
    logits = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0]).expand(20, 2, 1, 5)
    requests = [request(temperature=0), *[request(top_k=2)] * 9, *[request(top_k=4, temperature=2)] * 10]
    codes = sample(logits, requests, list(range(20)))[0].flatten().tolist()
    assert (codes[0], set(codes[1:10]), set(codes[10:])) == (1, {1, 2}, {0, 1, 2, 3})


def test_codes_are_distributed_as_the_softmax() -> None:
    logits = [1.0, 0.5, 0.2, -0.5]
    both = torch.tensor(logits).expand(30, 2, 5, 4)
    codes, _ = sample(both, [request(temperature=0.8, top_k=3)] * 30, list(range(30)))
    assert_distributed(codes.flatten(), logits, 0.8, 3, 0.0)


def test_codes_of_a_request_are_the_same_in_any_batch() -> None:
    logits = logits_of(5, 2, 128)
    alone = [sample(logits[row, None], [REQUESTS[row]], [COUNTS[row]])[0][0] for row in range(5)]
    for batch in ([4, 3, 2, 1, 0], [3, 0, 3]):
        codes, _ = sample(logits[batch], [REQUESTS[row] for row in batch], [COUNTS[row] for row in batch])
        assert torch.equal(codes, torch.stack([alone[row] for row in batch]))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_logits_that_are_not_finite_are_reported_and_yield_codes(value: float) -> None:
    logits = logits_of(3, 2, 20)
    requests, counts = [request(seed=seed, top_p=top_p) for seed, top_p in enumerate((0.5, 0.0, 0.5))], [0] * 3
    clean, _ = define(logits, requests, counts)
    logits[0, 0, 1, 5] = value
    logits[1, 1, 0] = value
    codes, is_finite = sample(logits, requests, counts)
    assert (
        is_finite.tolist() == define(logits, requests, counts)[1].tolist() == [[True, False], [False, True], [True] * 2]
    )
    assert torch.equal(codes[is_finite], clean[is_finite])
    assert codes.ge(0).logical_and(codes < 20).all()


def test_row_that_fills_up_a_batch_may_have_parameters_of_0() -> None:
    floats, integers = torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    parameters = sampling.SamplingTensors(floats, floats, integers, floats, integers)
    with interpreted():
        codes = sampling_kernel.sample(torch.zeros(1, 2, 2, 16), parameters, integers, max_top_k=1, uses_top_p=False)
    assert codes.tolist() == [[0, 0]]


@pytest.mark.parametrize("capability", [90, 121])
def test_compiles_without_spilling_registers(capability: int) -> None:
    parameters = parameters_of(REQUESTS, 2048)
    with recorded() as launches:
        sampling_kernel.sample(logits_of(5, 4, 2048), parameters, torch.tensor(COUNTS), max_top_k=2048, uses_top_p=True)
    assert len(launches) == 1
    binary = launches[0].compile(capability)
    assert binary.local_bytes == 0
    assert binary.registers * binary.threads <= 65536 // 2
    assert binary.shared_bytes <= MAX_SHARED_BYTES[capability] // 8
    # The largest noise comes from logarithms next to 1, where the approximation is wrong.
    assert "lg2.approx" not in binary.ptx
    # Guidance is calculated before the first barrier, and rounded as often as in the definition.
    assert "fma" not in binary.ptx.partition("bar.sync")[0]


def test_waits_for_the_kernel_before_it_as_soon_as_it_is_launched_early() -> None:
    parameters = parameters_of(REQUESTS, 2048)
    with recorded() as launches:
        sampling_kernel.sample_checked(
            logits_of(5, 4, 2048), parameters, torch.tensor(COUNTS), max_top_k=2048, uses_top_p=True, pdl=True
        )
    order = re.findall(r"griddepcontrol\.\w+|(?:ld|st)\.global", launches[0].compile(90).ptx)
    assert order[:2] == ["griddepcontrol.launch_dependents", "griddepcontrol.wait"]
    assert launches[0].kwargs["launch_pdl"]


def test_one_compiled_kernel_serves_all_batch_sizes() -> None:
    """Also if the parameters are rows of one tensor, at addresses that are aligned differently."""

    def specialization(batch: int) -> object:
        floats, integers = torch.zeros(3, batch), torch.zeros(6, batch, dtype=torch.int64)
        parameters = sampling.SamplingTensors(floats[0], floats[1], integers[4], floats[2], integers[5])
        with recorded() as launches:
            sampling_kernel.sample(logits_of(batch, 4, 64), parameters, integers[1], max_top_k=64, uses_top_p=True)
        return launches[0].specialization(90)

    assert specialization(1) == specialization(2) == specialization(8)
