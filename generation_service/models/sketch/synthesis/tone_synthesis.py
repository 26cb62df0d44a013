"""Two ways to synthesise a pitched sound without a loop over samples.

*Evolving wavetable*: additive synthesis at the price of two table look-ups. The amplitudes of all harmonics are
computed for a few moments of the note, each moment becomes a single-cycle waveform, and the note reads through them.
Filter sweeps, plucked strings and wind instruments are only different tables of numbers. No harmonic exceeds the
Nyquist frequency, so nothing aliases.

*Spectral pad*: a whole chord as one long spectrum with a narrow band of noise around each harmonic (the PADsynth method
of N. O. Paul), turned into a loop by one inverse FFT per channel. It sounds like a large ensemble and repeats without a
seam.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from generation_service.models.base import FloatArray
from generation_service.models.sketch.composition.music_theory import frequency

RATE_HZ: Final = 32_000
NYQUIST_MARGIN: Final = 0.45
"""The highest harmonic as a share of the sample rate. It leaves the last tenth of the band to resampling filters."""

_TABLE_BITS: Final = 12
_ROWS: Final = 14
_MAX_HARMONICS: Final = 56
_PAD_FRAMES: Final = 1 << 17
_MIDDLE_C_HZ: Final = 261.6
_SCOOP_SECONDS: Final = 0.025


@dataclass(frozen=True, slots=True)
class Timbre:
    """The sound of an instrument. Times are in seconds, rates in 1/s, frequencies in Hz."""

    tilt: float = 1.0
    """Harmonic k has the amplitude k ** -tilt: 1 is a sawtooth, 2 is as mellow as a triangle."""
    even: float = 1.0
    """Factor for the even harmonics: 0 sounds hollow, like a square wave or a clarinet."""
    partials: tuple[float, ...] = ()
    """The amplitudes of the first harmonics, which replace tilt and even (organ drawbars, bells)."""
    decay: float = 0.0
    """Decay rate of the whole note; 0 sustains it."""
    damping: float = 0.0
    """Additional decay rate per kHz of a harmonic's frequency, because strings lose high frequencies first."""
    cutoff: tuple[float, float] = (12_000.0, 12_000.0)
    """The low-pass cutoff at the start and at the end of the sweep."""
    cutoff_rate: float = 4.0
    resonance: float = 0.0
    """Relative height of the peak at the cutoff."""
    attack: float = 0.004
    release: float = 0.06
    voices: tuple[float, ...] = (0.0,)
    """The detuning of each unison voice in cents; a note with two or more is stereo."""
    spread: float = 0.12
    """How far the phases of the voices are apart at the onset: 1 is as wide as can be, and loses level in mono."""
    vibrato: float = 0.0
    """Depth in cents; the vibrato fades in after the attack."""
    drive: float = 0.0
    """Saturation: 0 is none, 1 is warm, 5 is a distorted guitar."""
    breath: float = 0.0
    """Level of the noise at the onset (hammer, pick, breath)."""
    air: float = 0.0
    """Level of the noise that lasts as long as the note (a flute's air, a bow on a string)."""
    formants: tuple[tuple[float, float, float], ...] = ()
    """Resonances of the body: frequency in Hz, gain in dB, width in octaves. They stay where they are for any pitch."""
    pick: float = 0.0
    """Where a string is struck, as a share of its length; harmonics that have a node there are missing. 0: anywhere."""
    aftersound: float = 0.0
    """Share of the level that decays four times as slowly, as when the strings of a piano fall out of phase."""
    tracking: float = 0.0
    """How the decay rate grows with the pitch: by this power of the frequency over middle C's."""
    dynamics: float = 0.5
    """How much duller and quieter at the onset a soft note is: 0 not at all."""
    tremolo: tuple[float, float] = (0.0, 0.0)
    """Rate in Hz and depth of a movement between left and right."""


def render_tone(
    timbre: Timbre, pitches: tuple[float, ...], gate: int, hardness: float = 0.85, scoop_cents: float = 0.0
) -> FloatArray:
    """A note or chord, held for `gate` frames and then released: float32 [1 or 2, frames].

    Its power at the onset is about that of a full-scale sine at -12 dB, whatever the timbre. `hardness` is 0 … 1; a
    hard note is brighter. The pitch begins `scoop_cents` lower, as if it came from the note before.
    """
    release = int(timbre.release * RATE_HZ)
    frames = gate + release
    if timbre.decay > 0.0:  # Inaudible after 60 dB, so a short pluck in a long gate is cut.
        slowest = timbre.decay * (0.25 if timbre.aftersound else 1.0)
        frames = min(frames, int(6.9 / slowest * RATE_HZ) + release)
    channels = 2 if len(timbre.voices) > 1 else 1
    out = np.zeros((channels, frames), np.float32)
    ticks = np.arange(frames, dtype=np.uint32)
    position, whole = _row_positions(frames)
    for pitch in pitches:
        table = _evolution(timbre, frequency(pitch), frames, hardness)
        for number, cents in enumerate(timbre.voices):
            phase = ticks * np.uint32(frequency(pitch + cents / 100.0) / RATE_HZ * 2.0**32)
            phase += np.uint32(number * 0.618034 * timbre.spread % 1.0 * 2.0**32)
            if timbre.vibrato:
                phase += _vibrato_phase(timbre.vibrato, frequency(pitch), frames)
            if scoop_cents:
                phase += _scoop_phase(scoop_cents, frequency(pitch), frames)
            index = (phase >> np.uint32(32 - _TABLE_BITS)).astype(np.int32) + whole
            here = table.take(index)
            index += 1 << _TABLE_BITS
            here += position * (table.take(index) - here)
            out[number % channels] += here
    out *= 0.25 / np.sqrt(len(pitches) * max(1.0, len(timbre.voices) / channels))
    if timbre.drive:
        out = overdrive(out, timbre.drive * (0.6 + 0.5 * hardness))
    if timbre.breath and not scoop_cents:
        out[:, : RATE_HZ // 8] += np.float32(timbre.breath * (0.35 + 0.75 * hardness)) * _breath()[:frames]
    if timbre.air:
        out += np.float32(timbre.air) * np.resize(_air(), (channels, frames))
    if timbre.tremolo[1] and channels == 2:
        rate, depth = timbre.tremolo
        sway = np.float32(depth) * np.sin(np.arange(frames, dtype=np.float32) * np.float32(2 * np.pi * rate / RATE_HZ))
        out *= np.stack([1.0 + sway, 1.0 - sway])
    envelope(out, timbre.attack, release)
    return out


@lru_cache(maxsize=24)
def render_pad(
    pitches: tuple[float, ...], tilt: float, brightness_hz: float, width_cents: float, seed: int,
    formants: tuple[tuple[float, float, float], ...] = (),
) -> FloatArray:  # fmt: skip
    """A seamless stereo loop of a chord: float32 [2, 131072] (4.1 s), at the level of `render_tone`."""
    bins = _PAD_FRAMES // 2 + 1
    magnitude = np.zeros(bins, np.float32)
    spread = 2.0 ** (width_cents / 1200.0) - 1.0
    for pitch in pitches:
        base = frequency(pitch)
        for k in range(1, max(2, int(min(24, NYQUIST_MARGIN * RATE_HZ / base, 3 * brightness_hz / base)))):
            centre = k * base * _PAD_FRAMES / RATE_HZ
            sigma = max(0.6, spread * centre)
            first = int(centre - 3 * sigma)
            span = np.arange(first, first + int(6 * sigma) + 2)
            bell = np.exp(-0.5 * ((span - centre) / sigma) ** 2)
            level = (
                float(body_gain(formants, k * base))
                * k**-tilt
                / (1.0 + (k * base / brightness_hz) ** 4) ** 0.5
                / np.sqrt(sigma)
            )
            magnitude[span] += (level * bell).astype(np.float32)
    random = np.random.default_rng(seed)
    turns = random.random((2, bins), dtype=np.float32) * np.float32(2.0 * np.pi)
    # Half of the phase is common to both channels: the pad is wide, but still there in mono.
    turns[1] = turns[0] + 0.5 * (turns[1] - np.float32(np.pi))
    spectrum = np.empty((2, bins), np.complex64)
    spectrum.real, spectrum.imag = np.cos(turns), np.sin(turns)
    spectrum *= magnitude
    loop: FloatArray = np.fft.irfft(spectrum, _PAD_FRAMES, axis=1).astype(np.float32)
    loop *= np.float32(0.18 / max(1e-9, float(np.sqrt(np.mean(loop**2)))))
    return loop


def shape_loop(loop: FloatArray, gate: int, attack: float, release: float) -> FloatArray:
    """Cuts a note out of a seamless loop: [2, gate + release], with raised-cosine ends. Times are in seconds."""
    tail = int(release * RATE_HZ)
    frames = gate + tail
    out = np.tile(loop, (1, -(-frames // loop.shape[1])))[:, :frames]
    envelope(out, min(attack, 0.6 * gate / RATE_HZ), tail)
    return out


def body_gain(formants: tuple[tuple[float, float, float], ...], hz: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """The gain of a body with these resonances at each frequency."""
    decibels = np.zeros(np.shape(hz))
    for centre_hz, gain_db, width in formants:
        decibels += gain_db * np.exp(-0.5 * (np.log2(np.asarray(hz) / centre_hz) / width) ** 2)
    return np.asarray(10.0 ** (decibels / 20.0))


def _evolution(timbre: Timbre, base_hz: float, frames: int, hardness: float) -> FloatArray:
    """The single-cycle waveforms of a note, flattened to [rows * table], with the last row twice."""
    count = max(1, min(_MAX_HARMONICS, int(NYQUIST_MARGIN * RATE_HZ / base_hz)))
    k = np.arange(1, count + 1)
    if timbre.partials:
        strength = np.pad(timbre.partials, (0, count))[:count]
    else:
        strength = k**-timbre.tilt * np.where(k % 2 == 0, timbre.even, 1.0)
    if timbre.pick:
        strength = strength * (0.12 + 0.88 * np.abs(np.sin(np.pi * k * timbre.pick)))
    strength = strength * body_gain(timbre.formants, k * base_hz)
    seconds = (np.arange(_ROWS) / (_ROWS - 1)) ** 2 * (frames / RATE_HZ)
    high, low = (hz * 2.0 ** (2.4 * timbre.dynamics * (hardness - 0.85)) for hz in timbre.cutoff)
    cutoff = low + (high - low) * np.exp(-seconds * timbre.cutoff_rate)
    ratio = k[None, :] * base_hz / cutoff[:, None]
    gain = 1.0 / np.sqrt(1.0 + ratio**4)
    if timbre.resonance:
        gain = gain * (1.0 + timbre.resonance * np.exp(-8.0 * np.log(ratio) ** 2))
    track = (base_hz / _MIDDLE_C_HZ) ** timbre.tracking
    rate = timbre.decay * track + timbre.damping * k * base_hz / 1000.0
    fading = np.exp(-seconds[:, None] * rate)
    if timbre.aftersound:
        fading = (1.0 - timbre.aftersound) * fading + timbre.aftersound * np.exp(-0.25 * seconds[:, None] * rate)
    amplitude = strength * gain * fading
    amplitude /= np.sqrt(np.max(np.sum(amplitude**2, axis=1)))
    size = 1 << _TABLE_BITS
    spectrum = np.zeros((_ROWS + 1, size // 2 + 1), np.complex64)
    # Schroeder's phases spread the energy over the whole cycle, for much lower peaks at equal loudness.
    turn = np.exp(-1j * np.pi * k * (k - 1) / count - 0.5j * np.pi)
    spectrum[:_ROWS, 1 : count + 1] = amplitude * turn
    spectrum[_ROWS] = spectrum[_ROWS - 1]
    table: FloatArray = np.fft.irfft(spectrum, size, axis=1).astype(np.float32)
    table *= np.float32(size / np.sqrt(2.0))
    return table.ravel()


@lru_cache(maxsize=32)
def _row_positions(frames: int) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """For each frame, its fractional position between two rows, and the table offset of the first of them."""
    rows = np.sqrt(np.arange(frames, dtype=np.float32) / np.float32(frames)) * np.float32(_ROWS - 1)
    whole = rows.astype(np.int32)
    return rows - whole, whole << _TABLE_BITS


def _vibrato_phase(cents: float, base_hz: float, frames: int) -> npt.NDArray[np.uint32]:
    rate_hz, fade_seconds = 5.1, 0.45
    seconds = np.arange(frames, dtype=np.float32) / np.float32(RATE_HZ)
    depth = base_hz * (2.0 ** (cents / 1200.0) - 1.0) / (2.0 * np.pi * rate_hz)
    cycles = np.minimum(1.0, seconds / np.float32(fade_seconds)) ** 2
    cycles *= np.sin(seconds * np.float32(2.0 * np.pi * rate_hz)) * np.float32(depth)
    turns: npt.NDArray[np.uint32] = (cycles * np.float32(2.0**31)).astype(np.int64).astype(np.uint32)
    return turns << np.uint32(1)


def _scoop_phase(cents: float, base_hz: float, frames: int) -> npt.NDArray[np.uint32]:
    """The phase of a pitch that comes from below within a few hundredths of a second."""
    seconds = np.arange(frames, dtype=np.float32) / np.float32(RATE_HZ)
    fall = np.float32(base_hz * (2.0 ** (-cents / 1200.0) - 1.0) * _SCOOP_SECONDS)
    cycles = fall * (np.float32(1.0) - np.exp(-seconds / np.float32(_SCOOP_SECONDS)))
    turns: npt.NDArray[np.uint32] = (cycles.astype(np.float64) * 2.0**32).astype(np.int64).astype(np.uint32)
    return turns


def overdrive(sound: FloatArray, drive: float) -> FloatArray:
    """Saturates the sound. A strong drive is then limited to the band of a guitar speaker (80 Hz … 4.5 kHz)."""
    power = float(np.sqrt(np.mean(sound[:, : RATE_HZ // 4] ** 2))) + 1e-9
    out: FloatArray = np.tanh(sound * np.float32(drive * 4.0)).astype(np.float32)
    if drive >= 2.0:
        size = 1 << int(np.ceil(np.log2(out.shape[1] + 2048)))
        spectrum = np.fft.rfft(out, size, axis=1)
        hz = np.fft.rfftfreq(size, 1.0 / RATE_HZ).astype(np.float32) + np.float32(1e-3)
        spectrum *= 1.0 / np.sqrt((1.0 + (hz / 4200.0) ** 6) * (1.0 + (75.0 / hz) ** 4))
        out = np.fft.irfft(spectrum, size, axis=1)[:, : sound.shape[1]].astype(np.float32)
    out -= np.mean(out, axis=1, keepdims=True)  # An asymmetric wave gets an offset.
    out *= np.float32(power) / np.float32(np.sqrt(np.mean(out[:, : RATE_HZ // 4] ** 2)) + 1e-9)
    return out


@lru_cache(maxsize=1)
def _air() -> FloatArray:
    """A second of steady noise that has most of its power around 3 kHz, without a seam: [2, 32000], RMS 0.05."""
    white = np.random.default_rng(11).standard_normal((2, RATE_HZ), dtype=np.float32)
    hz = np.fft.rfftfreq(RATE_HZ, 1.0 / RATE_HZ).astype(np.float32) + np.float32(1.0)
    shape = 1.0 / np.sqrt((1.0 + (1200.0 / hz) ** 4) * (1.0 + (hz / 5200.0) ** 4))
    noise: FloatArray = np.fft.irfft(np.fft.rfft(white, axis=1) * shape, RATE_HZ, axis=1).astype(np.float32)
    noise *= np.float32(0.05) / np.sqrt(np.mean(noise**2))
    return noise


@lru_cache(maxsize=1)
def _breath() -> FloatArray:
    """An eighth of a second of decaying noise: hammer, pick or breath."""
    random = np.random.default_rng(7)
    noise = random.standard_normal(RATE_HZ // 8, dtype=np.float32)
    noise[1:] = noise[1:] + 0.6 * noise[:-1]
    noise *= np.exp(-np.arange(len(noise), dtype=np.float32) / np.float32(0.018 * RATE_HZ))
    noise *= np.float32(0.08) * np.linspace(1.0, 0.0, len(noise), dtype=np.float32)
    return noise


def envelope(out: FloatArray, attack: float, release: int) -> None:
    """Applies a raised-cosine attack (seconds) and release (frames), in place, without a step at either end."""
    frames = out.shape[1]
    rise = min(frames // 2, max(32, int(attack * RATE_HZ)))
    out[:, :rise] *= _ramp(rise)
    fall = min(frames - rise, max(64, release))
    out[:, frames - fall :] *= _ramp(fall)[::-1]


@lru_cache(maxsize=128)
def _ramp(frames: int) -> FloatArray:
    # Offset by half a sample, so that neither the 0 nor the 1 is repeated.
    angle = (np.arange(frames, dtype=np.float32) + np.float32(0.5)) * np.float32(np.pi / frames)
    ramp: FloatArray = np.float32(0.5) - np.float32(0.5) * np.cos(angle)
    return ramp
