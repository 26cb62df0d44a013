"""The sampling kernel on a GPU, against its definition."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("triton", reason="The kernels need Triton")

from generation_service.models.musicgen import sampling  # noqa: E402
from generation_service.models.musicgen.kernels import sampling_kernel  # noqa: E402
from tests.support.sampled_codes import assert_distributed, parameters_of, request  # noqa: E402

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

REQUESTS = [
    request(seed=1),
    request(seed=2, temperature=0),
    request(seed=2**63 - 1, top_k=0, top_p=0.9, guidance_scale=1),
    request(seed=4, top_k=1),
    request(seed=5, top_k=40, top_p=0.3, temperature=0.6),
]


def on_gpu(parameters: sampling.SamplingTensors) -> sampling.SamplingTensors:
    return sampling.SamplingTensors(
        *(getattr(parameters, field.name).cuda() for field in dataclasses.fields(parameters))
    )


@pytest.mark.parametrize("codebooks", [4, 8])
def test_equals_the_definition(codebooks: int) -> None:
    logits = torch.randn(160, 2, codebooks, 2048, generator=torch.Generator().manual_seed(3)).bfloat16().float()
    logits[7, 1, 2, 5] = float("nan")
    parameters, counts = parameters_of(REQUESTS * 32, 2048), torch.arange(160)
    limits = {"max_top_k": 2048, "uses_top_p": True}
    expected, expected_finite = sampling.sample_checked(logits, parameters, counts, **limits)
    codes, is_finite = sampling_kernel.sample_checked(logits.cuda(), on_gpu(parameters), counts.cuda(), **limits)
    assert torch.equal(is_finite.cpu(), expected_finite)
    # Logarithms and sums may differ in the last bit, which rarely decides between two codes.
    assert (codes.cpu() != expected)[expected_finite].sum() <= 2
    alone = sampling_kernel.sample(
        logits[[9]].cuda(), on_gpu(parameters_of([REQUESTS[4]], 2048)), counts[[9]].cuda(), **limits
    )
    assert torch.equal(alone[0], codes[9])


def test_codes_are_distributed_as_the_softmax() -> None:
    logits = [1.0, 0.5, 0.2, -0.5]
    both = torch.tensor(logits).expand(20_000, 2, 1, 4).cuda()
    parameters = on_gpu(parameters_of([request(temperature=0.8, top_k=3)] * 20_000, 4))
    codes = sampling_kernel.sample(both, parameters, torch.arange(20_000).cuda(), max_top_k=4, uses_top_p=False)
    assert_distributed(codes.flatten().cpu(), logits, 0.8, 3, 0.0)
