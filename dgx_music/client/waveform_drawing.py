"""The waveform of a finished file, and how it is drawn in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dgx_music.export.v1.export_pb2 import GetWaveformResponse

FULL_SCALE = 128
"""Of the 8-bit values in the message."""
SVG_WIDTH, SVG_HEIGHT = 640, 80
"""Pixels; the picture scales with its frame."""


@dataclass(frozen=True, slots=True)
class Waveform:
    """The lowest and the highest sample of each of equally long parts, all channels together, -1 to 1."""

    minima: Sequence[float]
    maxima: Sequence[float]
    seconds_per_point: float

    @classmethod
    def from_message(cls, message: GetWaveformResponse) -> Waveform:
        values = [value / FULL_SCALE for value in message.data]
        return cls(values[::2], values[1::2], message.samples_per_pixel / message.sample_rate)

    def to_svg(self) -> str:
        """Returns a picture, as an <svg> element."""
        points = max(1, len(self.maxima))
        upper = [f"{x:d},{-value:.3f}" for x, value in enumerate(self.maxima)]
        lower = [f"{x:d},{-value:.3f}" for x, value in reversed(list(enumerate(self.minima)))]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -1 {points} 2" width="{SVG_WIDTH}" '
            f'height="{SVG_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="waveform" '
            f'style="max-width: 100%"><polygon points="{" ".join(upper + lower)}" fill="currentColor" '
            'stroke="currentColor" stroke-width="1" vector-effect="non-scaling-stroke"/></svg>'
        )

    def _repr_svg_(self) -> str:
        return self.to_svg()
