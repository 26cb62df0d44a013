"""Pieces longer than a window: codes equal to audiocraft's, seamless audio, and the memory of one window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

import torch

from dgx_music.errors import InvalidArgument
from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.loader import find_musicgen
from generation_service.models.musicgen.model import MusicGen
from generation_service.models.musicgen.resident.prefill_pace import HostStopwatch, PrefillPace
from tests.support.compression_checkpoints import TINY_CODEC, write_compression_checkpoint
from tests.support.golden_codes import HOP, STRIDE, WINDOW, WINDOWS, checksums_of, golden
from tests.support.musicgen_runs import EACH_GENERATOR, PIECE, greedy, load_model, load_with_short_window, run


def test_greedy_codes_of_several_windows_equal_audiocraft(model: MusicGen, folder: Path) -> None:
    expected = golden(f"{folder.name}/windows", checksums_of(folder))
    results = run(model, [(greedy(prompt, frames), joins_at) for prompt, frames, joins_at in WINDOWS])
    for (prompt, frames, _), codes, (state, samples) in zip(WINDOWS, expected, results, strict=True):
        assert np.array_equal(state.codes.select_frames(0, frames), codes), prompt
        assert samples.shape == (frames * HOP, model.info.channels)


@EACH_GENERATOR
def test_sampled_audio_does_not_depend_on_the_batch(
    model: MusicGen, generator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_prefill(model, generator, monkeypatch)
    requests = [
        (GenerationParameters(prompt, frames * HOP - 99 * (frames % 7), seed), joins_at)
        for seed, (prompt, frames, joins_at) in enumerate(WINDOWS)
    ]
    for (parameters, _), (state, samples) in zip(requests, run(model, requests), strict=True):
        ((alone, expected),) = run(model, [(parameters, 0)])
        count = state.codes.total_frames
        assert np.array_equal(state.codes.select_frames(0, count), alone.codes.select_frames(0, count))
        assert np.array_equal(samples, expected), parameters.prompt
        assert len(samples) == parameters.frames


def test_streamed_audio_equals_decoding_all_codes_at_once(folder: Path, t5: None, tmp_path: Path) -> None:
    """Also with a codec whose LSTM state outlives a window."""
    (tmp_path / "state_dict.bin").symlink_to(folder / "state_dict.bin")
    write_compression_checkpoint(tmp_path, TINY_CODEC, forget_bias=6.0)
    model = load_with_short_window(tmp_path)
    ((state, samples),) = run(model, [(GenerationParameters("calm piano", 200 * HOP - 13, seed=1), 0)])
    whole = model._clips.codec.decode(torch.from_numpy(state.codes.select_frames(0, 200)), model.info.channels)
    np.testing.assert_allclose(samples, whole[:-13], atol=1e-4)


class SlowStopwatch(HostStopwatch):
    """Measures that a piece of a prefill takes a second."""

    def seconds(self) -> float:
        return 1.0


@EACH_GENERATOR
def test_prefill_of_a_window_does_not_delay_other_requests(
    model: MusicGen, generator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests finish their first window at the same step; a third generates a code at every step meanwhile."""
    size = limit_prefill(model, generator, monkeypatch)
    states = [model.prefill(greedy(prompt, 2 * WINDOW)) for prompt in ("calm piano", "lofi")]
    for _ in range(20):
        model.step(states)
    other = model.prefill(greedy("80s synthwave", WINDOW))
    while not states[0].row.needs_prefill:
        model.step([*states, other])
    passes = []
    while any(state.row.needs_prefill for state in states):
        before = [state.row.position for state in (*states, other)]
        model.step([*states, other])
        passes.append([state.row.position - old for state, old in zip((*states, other), before, strict=True)])
    overlap = (WINDOW - STRIDE) // size
    # The last pass completes the prefill, so the same step also generates a code.
    assert passes[:overlap] == [[size, 0, 1]] * (overlap - 1) + [[size + 1, 0, 1]]
    assert passes[overlap:] == [[1, size, 1]] * (overlap - 1) + [[1, size + 1, 1]]
    for state in (*states, other):
        model.release(state)


def limit_prefill(model: MusicGen, generator: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Lets a step read only one piece of a prefill, and returns the number of its positions."""
    if generator == "eager":
        monkeypatch.setattr(model._generator._lm, "max_prefill_positions", 6)  # type: ignore[attr-defined]
        return 6
    monkeypatch.setattr(model._generator, "_pace", PrefillPace(SlowStopwatch))
    return PIECE


def test_long_piece_needs_the_memory_of_one_window(mono: Path, t5: None, generator: str) -> None:
    model = load_model(find_musicgen(mono), generator)
    assert model.info.max_duration_seconds == 600
    sizes = []
    for seconds in (30, 600):
        state = model.prefill(GenerationParameters("calm piano", seconds * 32_000, 1))
        sizes.append(model.memory.reserved_bytes)
        model.release(state)
    assert sizes[0] == sizes[1]
    with pytest.raises(InvalidArgument, match="at most 19200000"):
        model.prefill(GenerationParameters("calm piano", 600 * 32_000 + 1, 1))
