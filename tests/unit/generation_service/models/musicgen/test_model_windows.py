"""Pieces of more than a window: codes as audiocraft makes them, sound without a seam, one window's memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

import torch

from dgx_music.errors import InvalidArgument
from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen
from generation_service.models.musicgen.model import MusicGen
from generation_service.models.musicgen.sliding_window import WindowedCodes
from tests.support.compression_checkpoints import TINY_CODEC, write_compression_checkpoint
from tests.support.golden_codes import HOP, STRIDE, WINDOW, WINDOWS, golden, weights_in
from tests.support.musicgen_runs import greedy, load, run


def test_greedy_codes_equal_those_of_audiocraft_in_company_of_other_ages(model: MusicGen, folder: Path) -> None:
    expected = golden(f"{folder.name}/windows", weights_in(folder))
    made = run(model, [(greedy(prompt, frames), joins) for prompt, frames, joins in WINDOWS])
    for (prompt, frames, _), codes, (state, samples) in zip(WINDOWS, expected, made, strict=True):
        assert torch.equal(state.codes.frames(0, frames), codes), prompt
        assert samples.shape == (frames * HOP, model.info.channels)


def test_sampled_pieces_are_the_same_alone_and_in_company(model: MusicGen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model._lm, "prefill_positions", 7)
    plans = [
        (GenerationParameters(prompt, frames * HOP - 99 * (frames % 7), seed), joins)
        for seed, (prompt, frames, joins) in enumerate(WINDOWS)
    ]
    for (asked, _), (state, samples) in zip(plans, run(model, plans), strict=True):
        ((alone, expected),) = run(model, [(asked, 0)])
        count = state.codes.count
        assert torch.equal(state.codes.frames(0, count), alone.codes.frames(0, count))
        assert np.array_equal(samples, expected), asked.prompt
        assert len(samples) == asked.frames


def test_the_stream_is_what_decoding_all_at_once_gives(folder: Path, t5: None, tmp_path: Path) -> None:
    """Also where the codec remembers for longer than a window lasts."""
    (tmp_path / "state_dict.bin").symlink_to(folder / "state_dict.bin")
    write_compression_checkpoint(tmp_path, TINY_CODEC, forget_bias=6.0)
    model = load(tmp_path)
    ((state, samples),) = run(model, [(GenerationParameters("calm piano", 200 * HOP - 13, seed=1), 0)])
    whole = model._codec.decode(state.codes.frames(0, 200), model.info.channels)
    np.testing.assert_allclose(samples, whole[:-13], atol=1e-4)


def test_a_window_that_is_read_holds_nobody_up(model: MusicGen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two come to the end of their first window at the same step; a third makes a code at every step all the while."""
    monkeypatch.setattr(model._lm, "prefill_positions", 6)
    states = [model.prefill(greedy(prompt, 2 * WINDOW)) for prompt in ("calm piano", "lofi")]
    for _ in range(20):
        model.step(states)
    other = model.prefill(greedy("80s synthwave", WINDOW))
    while not states[0].is_behind:
        model.step([*states, other])
    passes = []
    while any(state.is_behind for state in states):
        before = [state.cache.position for state in (*states, other)]
        model.step([*states, other])
        passes.append([state.cache.position - was for state, was in zip((*states, other), before, strict=True)])
    overlap = (WINDOW - STRIDE) // 6
    # The last pass catches up, and the step comes with it.
    assert passes[:overlap] == [[6, 0, 1]] * (overlap - 1) + [[7, 0, 1]]
    assert passes[overlap:] == [[1, 6, 1]] * (overlap - 1) + [[1, 7, 1]]
    for state in (*states, other):
        model.release(state)


def test_ten_minutes_take_the_memory_of_a_window(mono: Path, t5: None) -> None:
    model = load_musicgen(find_musicgen(mono))
    assert model.info.max_duration_seconds == 600
    sizes = []
    for seconds in (30, 600):
        state = model.prefill(GenerationParameters("calm piano", seconds * 32_000, 1))
        sizes.append(model.memory.reserved_bytes)
        model.release(state)
    assert sizes[0] == sizes[1]
    with pytest.raises(InvalidArgument, match="at most 19200000"):
        model.prefill(GenerationParameters("calm piano", 600 * 32_000 + 1, 1))


def test_frames_are_in_order_across_windows() -> None:
    codes = WindowedCodes((0, 1, 3), frames=23, none=99, window=10)
    heights = []
    while not codes.is_done:
        first = codes._first  # Of the window; what is sampled is the frame's own number in all codebooks.
        began = codes.add(torch.tensor([first + codes.step - delay for delay in (0, 1, 3)]))
        heights.append(codes.frames_ready)
        if began:
            assert codes.step == 4, "the last 4 of 10 frames are read again"
            again = [codes.frames_ready - 4 + frame for frame in range(4)]
            assert codes.inputs(0, 5).tolist() == [[99, *again], [99, 99, *again[:3]], [99, 99, 99, 99, again[0]]]
    assert heights == sorted(heights)
    assert codes.frames(0, 23).tolist() == [list(range(23))] * 3
    assert codes.frames(4, 17).tolist() == [list(range(4, 17))] * 3
    assert codes.frames(20, 23).tolist() == [list(range(20, 23))] * 3
