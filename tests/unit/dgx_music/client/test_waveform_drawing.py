"""The outline of a file as numbers and as a picture."""

from __future__ import annotations

from xml.etree import ElementTree

from dgx_music.client.waveform_drawing import Waveform
from dgx_music.export.v1.export_pb2 import GetWaveformResponse


def test_message_becomes_numbers_and_a_polygon() -> None:
    message = GetWaveformResponse(
        sample_rate=8000, samples_per_pixel=400, length=3, data=[-128, 127, 0, 64, -32, 0], bits=8
    )
    waveform = Waveform.from_message(message)
    assert waveform == Waveform([-1.0, 0.0, -0.25], [127 / 128, 0.5, 0.0], 0.05)
    picture = ElementTree.fromstring(waveform._repr_svg_())
    (polygon,) = picture
    assert picture.get("viewBox") == "0 -1 3 2"
    assert polygon.get("points") == "0,-0.992 1,-0.500 2,-0.000 2,0.250 1,-0.000 0,1.000"


def test_file_without_samples_is_drawn_too() -> None:
    assert "<polygon" in Waveform([], [], 0.0).to_svg()
