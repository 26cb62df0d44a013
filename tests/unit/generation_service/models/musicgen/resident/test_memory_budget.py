"""How much of a GPU's memory the KV caches get."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.hardware.memory import DeviceMemory  # noqa: E402
from generation_service.models.musicgen.resident import memory_budget  # noqa: E402
from generation_service.models.musicgen.resident.memory_budget import WORKING_BYTES, GpuBudget  # noqa: E402

GIB = 1 << 30


@pytest.fixture
def free_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GPU of 80 GiB. The item of the list is what is free of it."""
    free = [0]
    monkeypatch.setattr(memory_budget, "gpu_memory", lambda: DeviceMemory(free[0], 80 * GIB))
    return free


def test_weights_and_caches_together_get_the_share_of_what_was_free_before(free_bytes: list[int]) -> None:
    free_bytes[0] = 60 * GIB  # Other programs use the rest.
    budget = GpuBudget(0.9)
    free_bytes[0] -= 10 * GIB  # The weights.
    assert budget.available_bytes() == 44 * GIB - WORKING_BYTES


def test_weights_that_take_all_of_it_leave_nothing(free_bytes: list[int]) -> None:
    free_bytes[0] = 12 * GIB
    budget = GpuBudget(1.0)
    free_bytes[0] = 1 * GIB
    assert budget.available_bytes() == 0
