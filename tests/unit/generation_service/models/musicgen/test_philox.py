"""Random numbers by counter, against the known answers of the Random123 library."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
scipy_stats = pytest.importorskip("scipy.stats")

from generation_service.models.musicgen.philox import _uniform, gumbel_noise, philox  # noqa: E402


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
    ids=["zeros", "ones", "digits of pi"],
)
def test_philox_gives_the_known_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    words = philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))  # type: ignore[arg-type]
    assert [int(word) for word in words] == expected


def noise(seed: int = 7, sample_count: int = 3, codebook: int = 1, codes: int = 2048) -> torch.Tensor:
    return gumbel_noise(*map(torch.tensor, (seed, sample_count, codebook)), torch.arange(codes))


def test_noise_has_the_gumbel_distribution() -> None:
    assert scipy_stats.kstest(noise(codes=50_000).numpy(), scipy_stats.gumbel_r.cdf).pvalue > 0.01


def test_noise_differs_for_each_seed_sample_and_codebook() -> None:
    others = [
        noise(),
        noise(seed=8),
        noise(seed=7 + 2**32),
        noise(seed=2**63 - 1),
        noise(sample_count=4),
        noise(codebook=2),
    ]
    correlations = torch.corrcoef(torch.stack(others)) - torch.eye(len(others))
    assert correlations.abs().max() < 0.1


def test_noise_is_finite_for_the_lowest_and_the_highest_word() -> None:
    assert _uniform(torch.tensor([0, 2**32 - 1])).tolist() == [2.0**-24, 1 - 2.0**-24]
