"""The memory that requests get on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from generation_service.hardware.memory import DeviceMemory  # noqa: E402
from generation_service.models.musicgen import loader  # noqa: E402
from generation_service.models.musicgen.code_generator import Reservation  # noqa: E402
from generation_service.models.musicgen.conditions import MAX_BRANCHES  # noqa: E402
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen  # noqa: E402


@pytest.mark.parametrize(
    ("memory", "free_bytes"), [(DeviceMemory(1 << 26, 1 << 34), 1 << 26), (None, loader.UNKNOWN_FREE_BYTES)]
)
def test_requests_get_at_most_half_of_the_memory_that_is_available(
    mono: Path, t5: None, monkeypatch: pytest.MonkeyPatch, memory: DeviceMemory | None, free_bytes: int
) -> None:
    monkeypatch.setattr(loader, "host_memory", lambda: memory)
    assert load_musicgen(find_musicgen(mono), max_batch_size=10_000).memory.limit_bytes == free_bytes // 2


def test_requests_get_no_more_memory_than_a_batch_can_use(
    mono: Path, t5: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two engines, or two models in one, together must not promise more than the machine has."""
    monkeypatch.setattr(loader, "host_memory", lambda: DeviceMemory(1 << 40, 1 << 40))
    found = find_musicgen(mono)
    one, four = (load_musicgen(found, max_batch_size=size).memory for size in (1, 4))
    longest = Reservation(1503, loader.LONG_PROMPT_TOKENS)
    assert four.limit_bytes == 4 * four.size_bytes(longest)
    with_branches = replace(longest, branches=MAX_BRANCHES, has_negative=True)
    assert one.limit_bytes == one.size_bytes(with_branches), "a batch of one can be one of several branches"
