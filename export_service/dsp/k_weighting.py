"""K-weighting (ITU-R BS.1770-5, Annex 1) as matrix products over whole segments.

The two biquads are one linear system of four states. Its response to a row of 32 samples is a matrix, and so is that of
the states to 16 rows, and to 64 such groups; that is three times as fast as filtering sample by sample.

The biquads at any sample rate are those of B. De Man, "Evaluation of Implementations of the EBU R128 Loudness
Measurement", AES Convention 145 (2018): the standard gives coefficients for 48 kHz only. pyloudnorm and libebur128 have
the same, and tests compare with both; to import pyloudnorm here would take each first export half a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from export_service.dsp.arrays import FloatArray, Samples
from export_service.dsp.segments import ROW_FRAMES, SEGMENT_ROWS, STATE_LINES

SHELF_HZ, SHELF_Q, SHELF_DB = 1681.9744509555319, 0.7071752369554193, 3.99984385397
SHELF_BAND_EXPONENT = 0.499666774155
PASS_HZ, PASS_Q = 38.13547087613982, 0.5003270373253953
GROUP_ROWS = 16
GROUPS = SEGMENT_ROWS // GROUP_ROWS
COLUMNS_PER_PRODUCT = 128
"""Small enough that OpenBLAS does not use threads, which double the CPU time and stall on a busy machine."""
GROUPS_PER_PRODUCT = 32
STATE_DECAY_STEPS = 30
"""2 to this power samples: after so long, the filters have forgotten everything at any sample rate."""


class KWeighting:
    """Filters a signal segment by segment."""

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._system = _build_system(sample_rate_hz)
        self._channels = channels
        self._state = np.zeros((STATE_LINES, channels))
        self._dtype = np.float32 if channels == 1 else np.complex64
        """A row of all channels is one number while columns are only rearranged, which is faster."""
        self._weighted = np.empty((ROW_FRAMES, SEGMENT_ROWS * channels), dtype=np.float32)

    def weigh(self, segment: Samples, scale: float) -> Samples:
        """Filters the next segment of a `RowMatrix`, times `scale`, and returns it in the same layout: [ROW_FRAMES,
        SEGMENT_ROWS * channels], valid until the next call.
        """
        system, channels, dtype, width = self._system, self._channels, self._dtype, GROUPS_PER_PRODUCT
        batches = _batches(segment)
        added = np.matmul(system.inputs, batches[:, :ROW_FRAMES]).transpose(1, 0, 2).reshape(STATE_LINES, -1)
        grouped = added.view(dtype).reshape(STATE_LINES, GROUPS, GROUP_ROWS).transpose(2, 0, 1)
        grouped = grouped.reshape(GROUP_ROWS * STATE_LINES, GROUPS).view(np.float32)
        # From rest at the start of each group: the states before each of its rows and after the last one.
        inside = np.empty((len(system.in_group), GROUPS * channels), dtype=np.float32)
        np.matmul(system.in_group[:, STATE_LINES:], _batches(grouped, width), out=_batches(inside, width))
        # The states before each group, and after the last one.
        ends = inside[-STATE_LINES:].reshape(STATE_LINES, GROUPS, channels).transpose(1, 0, 2)
        ends = np.concatenate([(self._state * scale).astype(np.float32)[None], ends])
        starts = (system.over_groups @ ends.reshape(-1, channels)).reshape(GROUPS + 1, STATE_LINES, channels)
        self._state = starts[-1].astype(np.float64) / scale
        states = inside[:-STATE_LINES]
        states += system.in_group[:-STATE_LINES, :STATE_LINES] @ starts[:-1].transpose(1, 0, 2).reshape(STATE_LINES, -1)
        by_row = states.view(dtype).reshape(GROUP_ROWS, STATE_LINES, GROUPS).transpose(1, 2, 0)
        segment[ROW_FRAMES:].view(dtype).reshape(STATE_LINES, GROUPS, GROUP_ROWS)[:] = by_row
        np.matmul(system.outputs, batches, out=_batches(self._weighted))
        return self._weighted


@dataclass(frozen=True)
class _System:
    """The filters as a linear system, in matrices to be multiplied from the left."""

    outputs: Samples
    """[ROW_FRAMES, ROW_FRAMES + STATE_LINES]: from a row's samples and the state before it to the filtered samples."""
    inputs: Samples
    """[STATE_LINES, ROW_FRAMES]: from a row's samples to the state after it."""
    in_group: Samples
    """From the state before a group and what each row adds to the states before each row and after the last one."""
    over_groups: Samples
    """The same for the groups of a segment."""


@cache
def _build_system(sample_rate_hz: int) -> _System:
    transition, gain_in, gain_out, direct = _state_space(sample_rate_hz)
    powers = [np.eye(STATE_LINES)]
    for _ in range(ROW_FRAMES):
        powers.append(transition @ powers[-1])
    response = [direct, *(float(gain_out @ power @ gain_in) for power in powers[: ROW_FRAMES - 1])]
    toeplitz = [
        [response[row - column] if column <= row else 0.0 for column in range(ROW_FRAMES)] for row in range(ROW_FRAMES)
    ]
    free = np.stack([gain_out @ power for power in powers[:ROW_FRAMES]])
    after_group = np.linalg.matrix_power(powers[ROW_FRAMES], GROUP_ROWS)
    return _System(
        outputs=np.hstack([toeplitz, free]).astype(np.float32),
        inputs=np.stack([power @ gain_in for power in powers[ROW_FRAMES - 1 :: -1]], axis=1).astype(np.float32),
        in_group=_states(powers[ROW_FRAMES], GROUP_ROWS),
        over_groups=_states(after_group, GROUPS),
    )


def _states(transition: FloatArray, steps: int) -> Samples:
    """Returns the matrix from the first state and what each step adds to the state before and after each step."""
    powers = [np.eye(STATE_LINES)]
    for _ in range(steps):
        powers.append(transition @ powers[-1])
    powers += [np.zeros((STATE_LINES, STATE_LINES))] * steps  # For negative differences.
    step = np.arange(steps + 1)
    blocks = np.array(powers)[step[:, None] - step]
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3), dtype=np.float32).reshape(STATE_LINES * len(step), -1)


def _state_space(sample_rate_hz: int) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Returns the transition matrix, the input and output gains of the states, and the gain past the states.

    The states are scaled and rotated so that white noise gives each the same variance and no correlation: float32 then
    suffices, even for bass next to a constant offset.
    """
    transition, gain_in = np.zeros((STATE_LINES, STATE_LINES)), np.zeros(STATE_LINES)
    gain_out, direct = np.zeros(STATE_LINES), 1.0
    for first, (b0, b1, b2, _, a1, a2) in zip((0, 2), biquads(sample_rate_hz), strict=True):
        states = slice(first, first + 2)
        added = np.array([b1 - a1 * b0, b2 - a2 * b0])
        # In series: what the biquads so far put out drives this one.
        transition[states] = np.outer(added, gain_out)
        transition[states, states] = [[-a1, 1.0], [-a2, 0.0]]
        gain_in[states] = added * direct
        gain_out *= b0
        gain_out[first] = 1.0
        direct *= b0
    covariance, power = np.outer(gain_in, gain_in), transition
    for _ in range(STATE_DECAY_STEPS):
        covariance, power = covariance + power @ covariance @ power.T, power @ power
    basis = np.linalg.cholesky(covariance)
    inverse = np.linalg.inv(basis)
    return inverse @ transition @ basis, inverse @ gain_in, gain_out @ basis, direct


def biquads(sample_rate_hz: int) -> list[list[float]]:
    """Returns the coefficients b0 b1 b2 a0 a1 a2 of the high shelf and the high pass for any sample rate; a0 is 1."""
    k = math.tan(math.pi * SHELF_HZ / sample_rate_hz)
    high = 10.0 ** (SHELF_DB / 20.0)
    band = high**SHELF_BAND_EXPONENT
    feedback = _feedback(k, SHELF_Q)
    a0 = 1.0 + k / SHELF_Q + k * k
    shelf = [
        (high + band * k / SHELF_Q + k * k) / a0,
        2.0 * (k * k - high) / a0,
        (high - band * k / SHELF_Q + k * k) / a0,
    ]
    return [[*shelf, *feedback], [1.0, -2.0, 1.0, *_feedback(math.tan(math.pi * PASS_HZ / sample_rate_hz), PASS_Q)]]


def _feedback(k: float, q: float) -> list[float]:
    a0 = 1.0 + k / q + k * k
    return [1.0, 2.0 * (k * k - 1.0) / a0, (1.0 - k / q + k * k) / a0]


def _batches(matrix: Samples, width: int = COLUMNS_PER_PRODUCT) -> Samples:
    """Returns a view of the columns in batches: [batches, lines, width]."""
    return matrix.reshape(len(matrix), -1, width).transpose(1, 0, 2)
