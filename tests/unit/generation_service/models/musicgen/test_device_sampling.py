"""Drawing for a whole batch at once means what drawing for one means."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from generation_service.models.base import GenerationParameters  # noqa: E402
from generation_service.models.musicgen.device_sampling import draw_together, gumbel  # noqa: E402
from generation_service.models.musicgen.sampling import Sampler  # noqa: E402

FOUR = torch.log(torch.tensor([0.4, 0.3, 0.2, 0.1]))


def sampler(seed: int = 7, **changes: float) -> Sampler:
    return Sampler(GenerationParameters("", 1, seed, **changes))  # type: ignore[arg-type]


def draws(count: int = 300, **changes: float) -> Tensor:
    """Of four codes, 0 the likeliest: int64 [count]."""
    one = sampler(**changes)
    return torch.cat([draw_together(FOUR.expand(1, 2, 1, 4), [one])[0] for _ in range(count)])


def test_it_keeps_to_top_k_and_top_p() -> None:
    assert set(draws(temperature=0).tolist()) == {0}
    assert set(draws(top_k=1).tolist()) == {0}
    assert set(draws(top_k=2).tolist()) == {0, 1}
    assert set(draws(top_k=0).tolist()) == {0, 1, 2, 3}
    assert set(draws(top_p=0.65).tolist()) == {0, 1}
    assert set(draws(top_p=0.95, top_k=1).tolist()) == {0, 1, 2, 3}, "top_p rules where it is given"


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.5, 0), (1.0, 2)])
def test_codes_come_as_often_as_they_should(temperature: float, top_k: int) -> None:
    expected = (FOUR[: top_k or 4] / temperature).softmax(-1)
    counts = torch.bincount(draws(4000, temperature=temperature, top_k=top_k), minlength=4)[: len(expected)]
    # Pearson's χ², 3 degrees of freedom at most: more than 16.3 in one of a thousand seeds, and this is one seed.
    assert ((counts - 4000 * expected) ** 2 / (4000 * expected)).sum() < 16.3


def test_noise_is_gumbel_noise_and_all_of_it_differs() -> None:
    seeds = torch.tensor([0, 1, 2, 2**63 - 1]).view(-1, 1, 1)
    noise = torch.stack([gumbel(seeds, torch.full_like(seeds, draw), 4, 2048) for draw in range(8)])
    assert noise.isfinite().all()
    assert abs(noise.mean() - 0.5772) < 0.01, "Euler's constant"
    assert abs(noise.var() - 1.6449) < 0.05, "π² / 6"
    rows = noise.reshape(-1, 2048)
    correlations = torch.corrcoef(rows) - torch.eye(len(rows))
    assert correlations.abs().max() < 0.12, "of 128 rows of 2048, 5 standard deviations"


def test_a_draw_depends_on_no_company_and_the_seed_makes_it_again() -> None:
    asked = [{"top_k": 5}, {"top_p": 0.7}, {"temperature": 0.0}, {"guidance_scale": 0.0}, {"top_k": 0}]
    logits = torch.randn(6, 5, 2, 4, 50, generator=torch.Generator().manual_seed(1))
    together = [sampler(seed, **changes) for seed, changes in enumerate(asked)]
    batch = torch.stack([draw_together(now, together) for now in logits])  # [6, 5, 4]
    for row, changes in enumerate(asked):
        alone = sampler(row, **changes)
        single = torch.stack([draw_together(now[row : row + 1], [alone])[0] for now in logits])
        assert torch.equal(single, batch[:, row])
    other = [sampler(seed + 100, **changes) for seed, changes in enumerate(asked)]
    assert not torch.equal(draw_together(logits[0], other), batch[0])


def test_a_temperature_of_0_takes_what_the_plain_sampler_takes() -> None:
    logits = torch.randn(3, 2, 4, 2048, generator=torch.Generator().manual_seed(2))
    greedy = [sampler(temperature=0) for _ in range(3)]
    expected = torch.stack([one.draw(own) for one, own in zip(greedy, logits, strict=True)])
    assert torch.equal(draw_together(logits, greedy), expected)
