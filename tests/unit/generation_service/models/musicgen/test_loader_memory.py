"""The memory that requests get on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from generation_service.hardware.memory import DeviceMemory  # noqa: E402
from generation_service.models.musicgen import loader  # noqa: E402
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen  # noqa: E402


@pytest.mark.parametrize(
    ("memory", "free_bytes"), [(DeviceMemory(1 << 26, 1 << 34), 1 << 26), (None, loader.UNKNOWN_FREE_BYTES)]
)
def test_requests_get_half_of_the_memory_that_is_available(
    mono: Path, t5: None, monkeypatch: pytest.MonkeyPatch, memory: DeviceMemory | None, free_bytes: int
) -> None:
    monkeypatch.setattr(loader, "host_memory", lambda: memory)
    assert load_musicgen(find_musicgen(mono)).memory.limit_bytes == free_bytes // 2
