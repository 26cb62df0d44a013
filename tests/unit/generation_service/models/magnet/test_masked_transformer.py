"""The transformer over all frames of a segment. That it computes what audiocraft does is in `test_magnet_model`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="MAGNeT needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

import torch

from generation_service.models.magnet.masked_transformer import MaskedTransformer
from generation_service.models.musicgen.lm.linear import build_linear
from tests.support.magnet_runs import find

FRAMES = 24


@pytest.fixture(scope="module")
def transformer(folder: Path) -> MaskedTransformer:
    found = find(folder)
    return MaskedTransformer(
        found.checkpoint, found.config, partial(build_linear, precision="fp32"), torch.device("cpu")
    )


def random_codes(seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 65, (4, FRAMES), generator=torch.Generator().manual_seed(seed))


def changed_frames(transformer: MaskedTransformer, stage: int) -> list[int]:
    """The frames whose logits change if the codes of the middle frame do, beyond rounding."""
    before = random_codes()
    after = before.clone()
    after[:, FRAMES // 2] = (after[:, FRAMES // 2] + 1) % 64
    first, second = (transformer.predict(codes, None, None, stage)[0] for codes in (before, after))
    return [frame for frame in range(FRAMES) if (first[frame] - second[frame]).abs().max() > 1e-4]


def test_first_codebook_sees_all_frames(transformer: MaskedTransformer) -> None:
    assert changed_frames(transformer, 0) == list(range(FRAMES))


def test_others_see_what_is_near(transformer: MaskedTransformer) -> None:
    """Through three layers, each of which sees a frame on both sides."""
    transformer.config = replace(transformer.config, subcodes_context=1)
    assert changed_frames(transformer, 2) == list(range(FRAMES // 2 - 3, FRAMES // 2 + 4))
    transformer.config = replace(transformer.config, subcodes_context=None)
    assert changed_frames(transformer, 2) == list(range(FRAMES))


def test_each_branch_has_its_own_text(transformer: MaskedTransformer) -> None:
    generator = torch.Generator().manual_seed(2)
    first, second = torch.randn(5, 64, generator=generator), torch.randn(3, 64, generator=generator)
    with_first, with_second = transformer.predict(random_codes(), first, second, 0)
    assert with_first.shape == (FRAMES, 64)
    without, same = transformer.predict(random_codes(), None, None, 0)
    assert torch.equal(without, same)
    torch.testing.assert_close(
        transformer.predict(random_codes(), second, None, 0), torch.stack([with_second, without])
    )
    torch.testing.assert_close(transformer.predict(random_codes(), None, first, 0), torch.stack([without, with_first]))
    assert not torch.allclose(with_first, with_second, atol=0.1)
    assert not torch.allclose(with_first, without, atol=0.1)
