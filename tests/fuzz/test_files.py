"""Damaged files: a clear refusal or a right answer, from a service that stays healthy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.files import fuzz_files
from tests.fuzz.mutations import mutate


@pytest.mark.slow
@pytest.mark.parametrize(("count", "seed"), [(10, 1), (50, 2)])
async def test_damaged_files_are_refused_or_read(tmp_path: Path, count: int, seed: int) -> None:
    report = await fuzz_files(count, seed, tmp_path)
    assert {outcome.partition(" ")[0] for outcome in report.outcomes} >= {"upload", "waveform", "stream", "edit"}


def test_mutant_is_the_same_for_the_same_seed() -> None:
    content = bytes(range(256)) * 20
    mutants = {seed: mutate(seed, content, [content]) for seed in map(str, range(50))}
    assert mutants == {seed: mutate(seed, content, [content]) for seed in mutants}
    assert len(set(mutants.values())) > 40
