"""The delay pattern of the codebooks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.delay_pattern import DelayedCodes  # noqa: E402


def test_delayed_codes_are_realigned_to_frames() -> None:
    codes = DelayedCodes((0, 0, 1, 3), frames=5, empty_code=9)
    assert codes.newest.tolist() == [9, 9, 9, 9]
    for n in range(codes.total_steps):
        codes.append(torch.tensor([n, n + 100, n + 200, n + 300]))
        assert codes.frames_ready == max(0, n - 2)
    assert codes.is_done
    assert codes.newest.tolist() == [9, 9, 9, 307], "there is no code beyond the last frame"
    assert codes.frames(1, 5).t().tolist() == [[n, n + 100, n + 201, n + 303] for n in range(1, 5)]
