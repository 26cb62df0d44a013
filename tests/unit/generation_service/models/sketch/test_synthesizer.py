"""The sketch model through the `Model` interface, judged by its samples."""

import time
import tracemalloc
from functools import lru_cache

import numpy as np
import pyloudnorm
import pytest
from scipy.signal import resample_poly

from generation_service.models.base import FloatArray, GenerationParameters, Model
from generation_service.models.sketch import Sketch, SketchState
from generation_service.models.sketch.composition.genres import STYLES
from generation_service.models.sketch.piece import BLOCK_FRAMES
from tests.support.sketch_measures import analyse

RATE = 32_000
MODEL: Model[SketchState] = Sketch()
QUICK = ("trap", "funk", "classical", "ambient")
"""The genres that every run of the tests hears; the others are slow only by their number."""


def each_genre(*, with_drums: bool = False) -> list[object]:
    """The genres, of which all but the quick ones are marked slow."""
    names = [name for name, style in STYLES.items() if style.drums or not with_drums]
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def blocks(prompt: str, seconds: float, seed: int = 1) -> list[FloatArray]:
    state = MODEL.prefill(GenerationParameters(prompt, round(seconds * RATE), seed))
    out = []
    while len(block := MODEL.step([state])[0]):
        out.append(block)
    MODEL.release(state)
    return out


@lru_cache(maxsize=64)
def render(prompt: str, seconds: float, seed: int = 1) -> FloatArray:
    return np.concatenate(blocks(prompt, seconds, seed))


def test_model_info() -> None:
    assert MODEL.info.is_synthesiser
    assert (MODEL.info.sample_rate_hz, MODEL.info.channels) == (RATE, 2)


def test_metadata_is_known_before_the_first_step() -> None:
    prompt = "dark trap, 140 BPM in C minor, 808 and bells"
    state = MODEL.prefill(GenerationParameters(prompt, RATE, 5))
    assert state.metadata["bpm"] == 140.0
    assert state.metadata["key"] == "C minor"
    assert state.metadata["genre"] == "trap"
    instruments = str(state.metadata["instruments"]).split(", ")
    assert {"drums", "808", "bells"} <= set(instruments)


@pytest.mark.parametrize("seconds", [0.1, 4.0, 12.3, 30.0, 97.5, 590.0])
def test_sections_cover_the_piece_without_a_gap(seconds: float) -> None:
    frames = round(seconds * RATE)
    for prompt in ("techno at 130 BPM", "slow ambient", "waltz at 61 BPM"):
        sections = MODEL.prefill(GenerationParameters(prompt, frames, 5)).sections
        assert [section.start_frame for section in sections] == [0, *(section.end_frame for section in sections[:-1])]
        assert sections[-1].end_frame == frames
        assert all(section.start_frame < section.end_frame for section in sections)
        assert (sections[0].name == "intro") == (len(sections) > 1)
        if seconds == 590.0:
            bar_frames = 4 * 60 / float(MODEL.prefill(GenerationParameters(prompt, frames, 5)).metadata["bpm"]) * RATE
            assert len(sections) > 5
            assert all(abs(section.start_frame / bar_frames % 1 - 0.5) > 0.49 for section in sections)


@pytest.mark.parametrize("genre", ["lo-fi", "house", "ambient"])
def test_same_request_same_samples(genre: str) -> None:
    assert np.array_equal(render(genre, 8.0, 11), np.concatenate(blocks(genre, 8.0, 11)))


def test_seed_changes_the_music() -> None:
    prompt = "pop, 120 bpm in C major"  # Tempo and key are fixed, so the seed must change something else.
    first, second = render(prompt, 8.0, 1), render(prompt, 8.0, 2)
    correlation = np.corrcoef(first[:, 0], second[:, 0])[0, 1]
    assert correlation < 0.9


@pytest.mark.parametrize("seconds", [1 / RATE, 0.001, 0.1, 1.0, 7.123, 16.0])
def test_exact_frames(seconds: float) -> None:
    for prompt in ("trap", "ambient"):
        audio = render(prompt, seconds)
        assert audio.shape == (round(seconds * RATE), 2)
        assert audio.dtype == np.float32
        assert np.isfinite(audio).all()


def test_audio_does_not_depend_on_the_batch() -> None:
    """The blocks of a sequence that shares its steps with others equal those of the sequence alone."""
    prompts = ["house", "jazz", "ambient"]
    states = [MODEL.prefill(GenerationParameters(p, RATE * (2 + n), 4)) for n, p in enumerate(prompts)]
    parts: list[list[FloatArray]] = [[] for _ in prompts]
    MODEL.step(states[:1])  # The first sequence is one step ahead of the others from here on.
    first_block = render("house", 2.0, 4)[:BLOCK_FRAMES]
    for _ in range(40):
        for part, block in zip(parts, MODEL.step(states), strict=True):
            part.append(block)
    parts[0].insert(0, first_block)
    for number, prompt in enumerate(prompts):
        assert np.array_equal(np.concatenate(parts[number]), render(prompt, 2.0 + number, 4))


def test_released_state_yields_nothing() -> None:
    state = MODEL.prefill(GenerationParameters("rock", RATE * 4, 1))
    assert len(MODEL.step([state])[0]) == BLOCK_FRAMES
    MODEL.release(state)
    assert MODEL.step([state])[0].shape == (0, 2)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("genre", each_genre())
def test_loudness_and_peaks_are_in_range(genre: str, seed: int) -> None:
    """Neither clipped nor with large peaks: export can reach -16 LUFS at -1 dBTP by gain alone."""
    audio = render(genre, 16.0, seed)
    assert np.max(np.abs(audio)) <= 0.95
    assert np.max(np.abs(audio.mean(axis=0))) < 1e-3
    true_peak = 20.0 * np.log10(np.max(np.abs(resample_poly(audio, 8, 1, axis=0))))
    loudness = pyloudnorm.Meter(RATE, filter_class="DeMan").integrated_loudness(audio)
    assert -18.5 < loudness < -12.0
    assert true_peak - loudness <= 15.0


@pytest.mark.parametrize("genre", each_genre())
def test_block_boundaries_are_seamless(genre: str) -> None:
    """The second difference is not unusual at block boundaries; a click would be visible in it."""
    audio = render(genre, 16.0, 1)
    bend = np.abs(np.diff(audio, n=2, axis=0)).max(axis=1)
    seams = np.arange(BLOCK_FRAMES, len(audio) - 1, BLOCK_FRAMES)
    at_seams = np.concatenate([bend[seams - 2], bend[seams - 1]])
    assert np.mean(at_seams > np.quantile(bend, 0.99)) <= 0.05
    assert np.median(at_seams) <= 1.5 * np.median(bend) + 1e-4


@pytest.mark.parametrize("prompt", ["ambient", "strings only", "organ only"])
def test_sustained_music_has_no_clicks(prompt: str) -> None:
    """Without percussive notes, no second difference is far above those in the tenth of a second around it."""
    audio = render(prompt, 16.0, 1)
    bend = np.abs(np.diff(audio, n=2, axis=0)).max(axis=1)
    windows = bend[: len(bend) // 3200 * 3200].reshape(-1, 3200)
    typical = np.sqrt(np.mean(windows**2, axis=1)) + 1e-4
    assert np.max(windows.max(axis=1) / typical) < 7.0


@pytest.mark.parametrize("genre", each_genre())
def test_begins_and_ends_in_silence(genre: str) -> None:
    audio = render(genre, 16.0, 1)
    assert np.max(np.abs(audio[0])) < 0.02
    assert np.max(np.abs(audio[-1])) < 1e-4
    loudest = np.max(np.abs(audio))
    assert np.max(np.abs(audio[-RATE // 20 :])) < 0.1 * loudest


def tempo(audio: FloatArray) -> float:
    """The tempo in BPM that the export service finds."""
    found = analyse(audio).tempo
    assert found is not None
    return found.bpm


@pytest.mark.parametrize("genre", each_genre(with_drums=True))
def test_tempo_can_be_heard(genre: str) -> None:
    audio = render(genre, 16.0, 1)
    state = MODEL.prefill(GenerationParameters(genre, len(audio), 1))
    ratio = tempo(audio) / float(state.metadata["bpm"])
    octave = 2.0 ** round(np.log2(ratio))
    assert ratio / octave == pytest.approx(1.0, abs=0.02)


def test_requested_tempo_can_be_heard() -> None:
    assert tempo(render("house at 107.5 bpm", 16.0, 2)) == pytest.approx(107.5, rel=0.01)


@pytest.mark.parametrize("genre", each_genre())
def test_stereo_width_and_mono_fold(genre: str) -> None:
    audio = render(genre, 16.0, 1)
    middle, side = audio.sum(axis=1) / 2.0, (audio[:, 0] - audio[:, 1]) / 2.0
    width = float(np.sqrt(np.mean(side**2) / np.mean(middle**2)))
    assert 0.05 < width < 1.1


def test_no_drums_means_no_kick() -> None:
    def pulse(prompt: str) -> float:
        """The energy below 80 Hz right after each beat, relative to half a beat later."""
        audio = render(f"{prompt}, 120 bpm", 16.0, 1).sum(axis=1)
        spectrum = np.fft.rfft(audio)
        spectrum[80 * 16 :] = 0.0
        power = np.fft.irfft(spectrum, len(audio)) ** 2
        beats = np.arange(10, 24) * RATE // 2
        on, off = (sum(power[at : at + RATE // 8].sum() for at in beats + shift) for shift in (0, RATE // 4))
        return float(on / off)

    assert pulse("house") > 3.0
    assert pulse("house without drums") < 1.5


def peak_memory(seconds: float) -> int:
    state = MODEL.prefill(GenerationParameters("house", round(seconds * RATE), 1))
    tracemalloc.start()
    while len(MODEL.step([state])[0]):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.slow
def test_memory_does_not_grow_with_length() -> None:
    short, long = peak_memory(20.0), peak_memory(60.0)
    assert long < short + (8 << 20)


def test_rendering_is_much_faster_than_real_time() -> None:
    """A loose limit for a loaded machine; the actual speed is several times higher."""
    blocks("pop", 4.0)
    started = time.process_time()
    blocks("pop", 30.0)
    assert 30.0 / (time.process_time() - started) > 20.0
