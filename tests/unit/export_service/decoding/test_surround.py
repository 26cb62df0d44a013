"""Mixing down surround sound, from files of several formats with a tone of its own in each channel."""

from __future__ import annotations

import numpy as np
import pytest

from dgx_music.errors import InvalidArgument
from export_service.decoding.source_file import open_source_file
from export_service.decoding.surround import can_mix_down, channel_mask_layout, mix_down
from tests.support.foreign_files import CHANNEL_COUNTS, encode_tones

LAYOUTS = {
    "2.1": "FL FR LFE",
    "3.0": "FL FR FC",
    "quad": "FL FR BL BR",
    "5.0": "FL FR FC BL BR",
    "5.1": "FL FR FC LFE BL BR",
    "5.1(side)": "FL FR FC LFE SL SR",
    "6.1": "FL FR FC LFE BC SL SR",
    "7.1": "FL FR FC LFE BL BR SL SR",
}
LEFT = {"FL": 1.0, "FC": 0.7071, "BL": 0.7071, "SL": 0.7071, "BC": 0.5}
RIGHT = {"FR": 1.0, "FC": 0.7071, "BR": 0.7071, "SR": 0.7071, "BC": 0.5}
"""Loudspeaker → its gain, as ITU-R BS.775-4 has it."""


def gains(samples, rate, channels):
    """Returns [channels, 2]: how much of the tone of each source channel is in the left and in the right channel."""
    middle = samples[rate // 10 : rate // 10 + rate // 5]  # A whole number of periods of each tone.
    time = np.arange(len(middle)) / rate
    waves = np.exp(-2j * np.pi * (200 + 100 * np.arange(channels))[:, None] * time)
    return np.abs(waves @ middle) * 2 / len(middle) / 0.5


@pytest.mark.parametrize(
    ("output", "options", "layouts", "tolerance"),
    [
        ("a.wav", [], LAYOUTS, 0.001),
        ("a.w64", [], ["5.1"], 0.001),
        ("a.caf", [], ["5.1", "quad"], 0.001),
        ("a.aiff", [], ["5.1", "5.0"], 0.001),
        ("a.flac", [], LAYOUTS, 0.001),
        ("a.oga", [], ["5.1"], 0.001),
        ("a.ogg", ["-c:a", "libvorbis", "-q:a", "8"], ["3.0", "quad", "5.0", "5.1", "6.1", "7.1"], 0.05),
        # The ffmpeg of these tests writes 5.0 and 6.1 in another order into Opus, and reads them so.
        ("a.opus", ["-c:a", "libopus", "-b:a", "512k", "-ar", "48000"], ["3.0", "quad", "5.1", "7.1"], 0.05),
        ("a.m4a", ["-c:a", "aac", "-b:a", "768k"], ["5.1", "7.1"], 0.05),
        ("a.mov", ["-c:a", "pcm_s16le"], ["5.1", "7.1"], 0.001),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_channel_is_mixed_down_with_its_gain(tmp_path, output, options, layouts, tolerance):
    for layout in layouts:
        rate = 48_000 if "libopus" in options else 44_100
        path = tmp_path / output
        path.write_bytes(encode_tones(*options, output=output, layout=layout, seconds=0.4, rate_hz=rate))
        with open_source_file(path, 600.0) as file:
            samples = np.concatenate(list(file.blocks()))
        assert (file.source_channels, file.channels, samples.shape[1]) == (CHANNEL_COUNTS[layout], 2, 2)
        names = LAYOUTS[layout].split()
        expected = [[LEFT.get(name, 0.0), RIGHT.get(name, 0.0)] for name in names]
        actual = gains(samples, rate, len(names))
        np.testing.assert_allclose(actual, expected, atol=tolerance, err_msg=f"{output} {layout}")


def test_level_is_not_changed():
    samples = np.ones((3, 6), dtype=np.float32)
    mixed = mix_down(samples, ("FL", "FR", "FC", "LFE", "BL", "BR"))
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, 1 + 2 * np.sqrt(0.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("mask", "channels", "layout"),
    [
        (0x3F, 6, "FL FR FC LFE BL BR"),
        (0x60F, 6, "FL FR FC LFE SL SR"),
        (0xB, 3, "FL FR LFE"),
        (0, 6, None),
        (0x3, 6, None),
        (0x3F | 1 << 31, 6, None),
    ],
)
def test_layout_of_channel_mask(mask, channels, layout):
    assert channel_mask_layout(mask, channels) == (layout and tuple(layout.split()))


@pytest.mark.parametrize(
    ("layout", "expected"),
    [(None, False), ("FL FR FC", True), ("FC LFE BC", False), ("FL FR TFL TFR", False), ("FL FR FR", False)],
)
def test_layouts_that_can_be_mixed_down(layout, expected):
    assert can_mix_down(layout and tuple(layout.split())) is expected


@pytest.mark.parametrize("mask", [b"0", b"3"])
def test_flac_whose_mask_names_no_layout_is_rejected(tmp_path, mask):
    content = encode_tones(output="a.flac", layout="2.1").replace(b"CHANNEL_MASK=0xb", b"CHANNEL_MASK=0x" + mask)
    (tmp_path / "file").write_bytes(content)
    message = "not 3 channels with an unknown layout"
    with pytest.raises(InvalidArgument, match=message), open_source_file(tmp_path / "file", 600.0):
        pass
