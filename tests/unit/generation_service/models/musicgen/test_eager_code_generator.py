# ruff: noqa: E402
"""Conditions beyond one text: codes equal to a plain implementation's, and independent of the rest of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.conditions import Branch, Condition, WindowConditions
from generation_service.models.musicgen.delay_pattern import Codes, DelayedCodes
from generation_service.models.musicgen.lm.linear import Precision
from tests.support.generated_codes import CodeRequest, generate_codes
from tests.support.generator_runs import eager_generator
from tests.support.plain_language_model import PlainLanguageModel

DIM = 64
GREEDY = GenerationParameters("", 1, seed=0, temperature=0, guidance_scale=2.5)


def vectors(count: int, seed: int) -> Tensor:
    """[count, dim], random instead of an encoder's output."""
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed))


def text(tokens: int, *, prefix: int = 0) -> Condition:
    return Condition(vectors(tokens, tokens), vectors(prefix, 100 + tokens) if prefix else None)


PLAIN = WindowConditions((Branch(text(9)),))
NEGATIVE = replace(PLAIN, negative=text(21))
CASES = {
    "plain": PLAIN,
    "negative text": NEGATIVE,
    "only a negative text": WindowConditions((Branch(Condition()),), text(4)),
    "two texts": WindowConditions((Branch(text(9), 0.25, 0.25), Branch(text(30), 0.75, 0.75))),
    "from one text to another": WindowConditions((Branch(text(9), 1.0, 0.0), Branch(text(5), 0.0, 1.0))),
    "from a text to none": WindowConditions((Branch(text(9), 1.0, 0.0), Branch(Condition(), 0.0, 1.0)), text(3)),
    "four texts": WindowConditions(tuple(Branch(text(n), w, w) for n, w in ((3, 0.5), (17, 0.1), (8, 0.2), (40, 0.2)))),
    "double guidance": WindowConditions(
        (Branch(text(9, prefix=7), 3.0, 3.0), Branch(replace(text(9, prefix=7), text=None), -2.0, -2.0))
    ),
    "prefix": WindowConditions((Branch(Condition(prefix=vectors(50, 1))),)),
    "prefix and its null": WindowConditions((Branch(text(6, prefix=70)),), Condition(prefix=vectors(70, 2))),
}
FRAMES = (40, 31, 22, 40, 38, 17, 25, 30, 36, 20)


@pytest.fixture(scope="module")
def reference(mono: Path) -> list[Codes]:
    """The greedy codes of each case. Every third continues known codes."""
    plain = PlainLanguageModel(mono)
    return [
        plain.generate(frames, conditions, GREEDY.guidance_scale, known(index))
        for index, (frames, conditions) in enumerate(zip(FRAMES, CASES.values(), strict=True))
    ]


def known(index: int) -> Codes | None:
    random = np.random.default_rng(index)
    return random.integers(0, 64, (4, index + 1)) if index % 3 == 0 else None


def requests(parameters: GenerationParameters = GREEDY) -> list[CodeRequest]:
    return [
        CodeRequest(replace(parameters, seed=index), conditions, frames, joins_at=2 * index, known=known(index))
        for index, (frames, conditions) in enumerate(zip(FRAMES, CASES.values(), strict=True))
    ]


def test_greedy_codes_equal_a_plain_implementation(mono: Path, reference: Sequence[Codes]) -> None:
    """All cases share a changing batch."""
    for name, codes, want in zip(CASES, generate_codes(eager_generator(mono), requests()), reference, strict=True):
        assert np.array_equal(codes, want), name


def test_every_condition_matters(mono: Path) -> None:
    """With the same known codes and the same length, no two cases have the same greedy codes."""
    all_requests = [replace(request, frames=30, known=None) for request in requests()]
    codes = generate_codes(eager_generator(mono), all_requests)
    assert len({each.tobytes() for each in codes}) == len(CASES)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_sampled_codes_do_not_depend_on_the_batch(mono: Path, precision: Precision) -> None:
    generator = eager_generator(mono, precision)
    sampled = requests(GenerationParameters("", 1, seed=0, top_k=20))
    together = generate_codes(generator, [*sampled, replace(sampled[6], joins_at=5, leaves_at=12)])
    for request, codes in zip(sampled, together, strict=False):
        assert np.array_equal(codes, generate_codes(generator, [replace(request, joins_at=0)])[0])
    assert generator.memory.reserved_bytes == 0


def test_second_window_has_other_conditions(mono: Path) -> None:
    """More branches, fewer, another text in the same place: each window equals one of a new request."""
    generator, other = eager_generator(mono), eager_generator(mono)
    windows = [
        CASES[name] for name in ("plain", "four texts", "negative text", "prefix", "from a text to none", "plain")
    ]
    row = generator.open(GREEDY, Reservation.for_windows(23, windows))
    mate = generator.open(GREEDY, Reservation.for_windows(200, [NEGATIVE]))
    generator.begin_window(mate, DelayedCodes((0, 1, 2, 3), 197, 64), NEGATIVE)
    for conditions in windows:
        codes = DelayedCodes((0, 1, 2, 3), 20, 64)
        generator.begin_window(row, codes, conditions)
        while not codes.is_done:
            if row.needs_prefill:
                generator.prefill(row)
                continue
            generator.launch([mate, row])
            ((of_mate, own),) = (result.codes for result in generator.collect(wait=True))
            mate.window.append(of_mate)
            codes.append(own)
        (expected,) = generate_codes(other, [CodeRequest(GREEDY, conditions, 20)])
        assert np.array_equal(codes.select_frames(0, 20), expected)


def test_weights_pass_linearly_over_the_new_frames() -> None:
    conditions = CASES["from one text to another"]
    assert [conditions.weights_at(progress) for progress in (0.0, 0.25, 1.0)] == [(1.0, 0.0), (0.75, 0.25), (0.0, 1.0)]
