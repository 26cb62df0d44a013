"""What stands before the codes: melody, style and text in this order, as long for every condition of a window."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

import torch

from dgx_music.errors import InvalidArgument
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.conditioners.prefix_conditioner import RequestPrefixes
from generation_service.models.musicgen.conditions import Branch, Condition, WindowConditions

DIM = 3
SHORT, LONG = torch.full((2, DIM), 2.0), torch.full((4, DIM), 4.0)
STYLE = RequestPrefixes(style=torch.full((5, DIM), 5.0), text_guidance=4.0)
TEXTS = WindowConditions((Branch(Condition(SHORT), 0.25, 0.5), Branch(Condition(LONG), 0.75, 0.5)))


def test_texts_of_a_window_are_padded_to_the_longest() -> None:
    window = replace(STYLE, text_guidance=1.0).prepend(replace(TEXTS, negative=Condition(SHORT)), 0)
    short, long, negative = (each.prefix[:, 0].tolist() for each in window.all() if each.prefix is not None)
    assert short == [5, 5, 5, 5, 5, 2, 2, 0, 0]
    assert long == [5, 5, 5, 5, 5, 4, 4, 4, 4]
    assert negative == [0, 0, 0, 0, 0, 2, 2, 0, 0]
    assert all(each.text is None for each in window.all())


def test_text_counts_more_than_the_style_which_is_a_branch_of_its_own() -> None:
    window = STYLE.prepend(TEXTS, 0)
    assert [branch.first_weight for branch in window.branches] == [1, 3, -3]
    assert [branch.last_weight for branch in window.branches] == [2, 2, -3]
    alone = window.branches[-1].condition.prefix
    assert alone is not None
    assert alone[:, 0].tolist() == [5, 5, 5, 5, 5, 0, 0, 0, 0]


def test_style_without_a_text_is_one_branch() -> None:
    window = STYLE.prepend(WindowConditions.from_text(None), 0)
    assert [(branch.first_weight, branch.condition.prefix is None) for branch in window.branches] == [(1, False)]
    assert window.prefix_positions == 6, "no text is one position of zeros, as in audiocraft"


@pytest.mark.parametrize("text", [None, SHORT, LONG])
@pytest.mark.parametrize("prefixes", [STYLE, replace(STYLE, text_guidance=1.0), RequestPrefixes(torch.zeros(0, DIM))])
def test_window_fits_into_what_is_reserved_for_it(prefixes: RequestPrefixes, text: torch.Tensor | None) -> None:
    conditions = replace(TEXTS, negative=Condition(text))
    window, reserved = prefixes.prepend(conditions, 0), prefixes.reserve(Reservation.for_windows(10, [conditions]))
    needed = Reservation.for_windows(10, [window])
    assert (needed.positions, needed.branches, needed.tokens) == (reserved.positions, reserved.branches, 0)
    assert not reserved.has_negative


def test_too_many_and_too_long_texts_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"conditioning\.further_prompts: .* at most 3 texts"):
        STYLE.reserve(Reservation(10, tokens=3, branches=4))
    with pytest.raises(InvalidArgument, match="prompt: has 513 tokens; this model reads at most 512"):
        STYLE.reserve(Reservation(10, tokens=513))
    STYLE.reserve(Reservation(10, tokens=512, branches=3))
