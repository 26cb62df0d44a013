"""Converts between messages and domain types for curves over the time of a file."""

from __future__ import annotations

import numpy as np

from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2
from export_service.dsp.curve_meter import LoudnessCurve
from export_service.dsp.loudness import ABSOLUTE_GATE_LUFS

MAX_CURVE_POINTS = 10_000
MIN_PEAK_DBTP = -120.0


def to_curve_points(points: int) -> int:
    if not 0 <= points <= MAX_CURVE_POINTS:
        raise InvalidArgument("points", f"must be 1 to {MAX_CURVE_POINTS}, or 0 for {MAX_CURVE_POINTS}, not {points}")
    return points or MAX_CURVE_POINTS


def from_curve(curve: LoudnessCurve) -> export_pb2.GetLoudnessCurveResponse:
    with np.errstate(divide="ignore"):
        true_peak_dbtp = 20.0 * np.log10(curve.true_peak)
    return export_pb2.GetLoudnessCurveResponse(
        seconds_per_point=curve.seconds_per_point,
        short_term_lufs=np.maximum(curve.short_term_lufs, ABSOLUTE_GATE_LUFS),
        momentary_lufs=np.maximum(curve.momentary_lufs, ABSOLUTE_GATE_LUFS),
        true_peak_dbtp=np.maximum(true_peak_dbtp, MIN_PEAK_DBTP),
    )
