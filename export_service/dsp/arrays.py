"""The array types that signal processing passes around."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
"""Audio, [frames, channels] unless said otherwise; full scale is ±1.0."""
FloatArray = npt.NDArray[np.float64]
"""Derived figures, such as power, loudness or gain over time."""
