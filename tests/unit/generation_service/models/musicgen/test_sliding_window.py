"""The sliding window over the codes of a long piece."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

import numpy as np

from generation_service.models.musicgen.sliding_window import WindowedCodes


def test_frames_are_in_order_across_windows() -> None:
    codes = WindowedCodes((0, 1, 3), frames=23, empty_code=99, window=10)
    ready_counts = []
    while not codes.is_done:
        first = codes._first  # The window's first frame. The sampled code is the number of its frame, in all codebooks.
        is_new_window = codes.append(np.array([first + codes.window.step - delay for delay in (0, 1, 3)]))
        ready_counts.append(codes.frames_ready)
        if is_new_window:
            assert codes.window.step == 4, "the last 4 of 10 frames are the next prompt"
            again = [codes.frames_ready - 4 + frame for frame in range(4)]
            assert codes.window.columns[:, :5].tolist() == [
                [99, *again],
                [99, 99, *again[:3]],
                [99, 99, 99, 99, again[0]],
            ]
    assert ready_counts == sorted(ready_counts)
    assert codes.select_frames(0, 23).tolist() == [list(range(23))] * 3
    assert codes.select_frames(4, 17).tolist() == [list(range(4, 17))] * 3
    assert codes.select_frames(20, 23).tolist() == [list(range(20, 23))] * 3
