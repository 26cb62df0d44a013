"""Measures the music of the `sketch` model by its samples: density, brightness, swing, and how alike two pieces are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyloudnorm

from export_service.analysis.analyzer import Analysis, analyze
from export_service.analysis.features import FeatureExtractor
from generation_service.models.base import GenerationParameters, MetadataValue, Section
from generation_service.models.sketch import Sketch

FloatArray = npt.NDArray[np.float32]

RATE_HZ = Sketch().info.sample_rate_hz
HOP = 160
"""Frames between two values of an onset envelope: 5 ms."""
WINDOW = 512
MELODIC_HZ = (180.0, 2000.0)
"""Above the kick and the bass."""
_SKIPPED_BEATS, _COMPARED_BEATS = 8, 20
"""Of a fingerprint: intros are often alike."""
BRIGHT_HZ = 3000.0
"""Hi-hats, shakers and strums are above it, and they carry the swing."""


@dataclass(frozen=True)
class Rendering:
    """Music of the sketch model: samples [frames, 2], and what the model says about them."""

    samples: FloatArray
    metadata: dict[str, MetadataValue]
    sections: tuple[Section, ...]

    @property
    def bpm(self) -> float:
        return float(self.metadata["bpm"])

    @property
    def key(self) -> str:
        return str(self.metadata["key"])


def render_sketch(prompt: str, seconds: float, seed: int) -> Rendering:
    """Renders a prompt with the sketch model."""
    model = Sketch()
    state = model.prefill(GenerationParameters(prompt, round(seconds * RATE_HZ), seed))
    blocks = []
    while len(block := model.step([state])[0]):
        blocks.append(block)
    return Rendering(np.concatenate(blocks), dict(state.metadata), tuple(state.sections))


def analyse(samples: FloatArray, hint_bpm: float = 0.0) -> Analysis:
    """The tempo and the key that the export service finds."""
    extractor = FeatureExtractor(RATE_HZ)
    for start in range(0, len(samples), RATE_HZ):
        extractor.feed(samples[start : start + RATE_HZ])
    return analyze(extractor.finish(), hint_bpm)


def loudness_lufs(samples: FloatArray) -> float:
    """Integrated loudness."""
    return float(pyloudnorm.Meter(RATE_HZ, filter_class="DeMan").integrated_loudness(samples))


def spectral_centroid(samples: FloatArray) -> float:
    """The mean frequency in Hz, weighted by amplitude, over the whole piece."""
    magnitudes = _magnitudes(samples, 2048, 1024)
    hz = np.fft.rfftfreq(2048, 1.0 / RATE_HZ)
    return float((magnitudes * hz).sum() / magnitudes.sum())


def onset_density(samples: FloatArray) -> float:
    """Onsets per second: peaks of the spectral flux that stand out of the fifth of a second around them."""
    flux = onset_envelope(samples)
    near, around = (np.lib.stride_tricks.sliding_window_view(np.pad(flux, n), 2 * n + 1) for n in (8, 20))
    peaks = (flux >= near.max(axis=1)) & (flux > 1.5 * around.mean(axis=1)) & (flux > 0.15 * np.quantile(flux, 0.99))
    return float(peaks.sum() * RATE_HZ / len(samples))


def onset_envelope(samples: FloatArray, low_hz: float = 0.0) -> FloatArray:
    """The spectral flux above a frequency, every 5 ms."""
    magnitudes = np.log1p(100.0 * _magnitudes(samples, WINDOW, HOP))
    first = int(low_hz * WINDOW / RATE_HZ)
    flux: FloatArray = np.maximum(0.0, np.diff(magnitudes[:, first:], axis=0)).sum(axis=1).astype(np.float32)
    return flux


def swing(samples: FloatArray, bpm: float, unit_beats: float) -> float:
    """How much later the second of two units comes than in the middle, as a share of a unit: 0.33 for triplets.

    The onsets of the bright sounds are averaged over all pairs of units, and the strongest moment near the second one
    is looked for.
    """
    envelope = onset_envelope(samples, BRIGHT_HZ)
    period = 2.0 * unit_beats * 60.0 / bpm * RATE_HZ / HOP
    # A window's flux peaks when the sound enters it: that long before its middle.
    place = ((np.arange(len(envelope)) + WINDOW / HOP) / period) % 1.0 * 2.0
    edges = np.arange(-0.05, 2.0, 0.025)
    mean = np.array([envelope[np.abs((place - at + 1.0) % 2.0 - 1.0) < 0.04].mean() for at in edges])
    second = (edges > 0.8) & (edges < 1.6)
    first = (edges > -0.05) & (edges < 0.3)
    return float(edges[second][np.argmax(mean[second])] - edges[first][np.argmax(mean[first])] - 1.0)


def fingerprint(rendering: Rendering) -> FloatArray:
    """What a listener tells pieces apart by: the pitch classes of each beat, and the onsets of each sixteenth.

    Both are relative to their mean over the piece, since all pieces in one key, or with the same pulse, share that.
    """
    mono = rendering.samples.mean(axis=1)
    flux = onset_envelope(rendering.samples)
    beat = 60.0 / rendering.bpm * RATE_HZ
    beats = range(_SKIPPED_BEATS, min(_SKIPPED_BEATS + _COMPARED_BEATS, int(len(mono) / beat)))
    chroma = np.array([_chroma(mono[int(at * beat) : int((at + 1) * beat)]) for at in beats])
    chroma /= np.linalg.norm(chroma, axis=1, keepdims=True) + 1e-9
    sixteenths = [int((at + part / 4) * beat / HOP) for at in beats for part in range(4)]
    width = int(beat / 4 / HOP)
    rhythm = np.array([float(flux[at : at + width].max(initial=0.0)) for at in sixteenths])
    chroma -= chroma.mean(axis=0)
    rhythm -= rhythm.mean()
    return np.concatenate([(chroma / np.linalg.norm(chroma)).ravel(), rhythm / np.linalg.norm(rhythm)]).astype(
        np.float32
    )


def distance(first: FloatArray, second: FloatArray) -> float:
    """0 for the same fingerprint, 1 for unrelated ones."""
    return float(1.0 - first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def _chroma(piece: FloatArray) -> FloatArray:
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)).astype(np.float32)))
    hz = np.fft.rfftfreq(len(piece), 1.0 / RATE_HZ)
    band = (hz > MELODIC_HZ[0]) & (hz < MELODIC_HZ[1])
    classes = np.round(69.0 + 12.0 * np.log2(hz[band] / 440.0)).astype(int) % 12
    return np.bincount(classes, np.sqrt(spectrum[band]), 12).astype(np.float32)


def _magnitudes(samples: FloatArray, size: int, hop: int) -> FloatArray:
    frames = np.lib.stride_tricks.sliding_window_view(samples.mean(axis=1), size)[::hop]
    magnitudes: FloatArray = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)).astype(
        np.float32
    )
    return magnitudes
