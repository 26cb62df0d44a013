"""The sliding window over the codes of a long piece."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

import numpy as np

from generation_service.models.musicgen.sliding_window import WindowedCodes, plan_windows, window_stride


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


def test_window_begins_at_each_given_frame_and_reads_what_is_before_it() -> None:
    codes = WindowedCodes((0, 1), 40, empty_code=99, window=10, prompt=np.array([[0, 1], [0, 1]]), starts=(2, 3, 5, 20))
    windows = [(codes.window_start, codes.window.frames)]
    while not codes.is_done:
        first = codes.window_start - codes.window.prompt_frames
        if codes.append(np.array([first + codes.window.step - delay for delay in (0, 1)])):
            known = codes.window.columns[0, 1 : codes.window.prompt_frames + 1]
            assert known.tolist() == [*range(codes.window_start - len(known), codes.window_start)]
            windows.append((codes.window_start, codes.window.frames))
    assert codes.select_frames(0, 40).tolist() == [list(range(40))] * 2
    # first new frame, frames with those before it: at most 4, and 6 new ones.
    expected = [(2, 3), (3, 5), (5, 10), (11, 10), (17, 7), (20, 10), (26, 10), (32, 10), (38, 6)]
    assert windows == expected


@pytest.mark.parametrize(
    ("frames", "prompt", "starts"),
    [(60, 0, []), (61, 0, []), (205, 0, []), (205, 24, []), (96, 5, []), (130, 10, [10, 40, 45]), (200, 0, [70, 190])],
)
@pytest.mark.parametrize("share", [0.6, 0.2])
def test_windows_begin_where_they_were_planned(frames: int, prompt: int, starts: list[int], share: float) -> None:
    known = np.zeros((2, prompt), np.int64) if prompt else None
    codes = WindowedCodes((0, 1), frames, 9, 60, known, starts, share)
    reads = [codes.first_read]
    while not codes.is_done:
        if codes.append(np.zeros(2, np.int64)):
            reads.append(codes.first_read)
    assert plan_windows(frames, 60, prompt, starts, window_stride(60, share)) == tuple(reads)
