"""The options with which encoders are called."""

from __future__ import annotations

import pytest

from export_service.formats.codecs import libsndfile_options
from service_runtime.audio.bit_rates import VORBIS_BIT_RATES_KBPS, vorbis_bit_rates
from service_runtime.audio.output_options import FileFormat


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, *(edge + step for edge, *_ in VORBIS_BIT_RATES_KBPS for step in (0, 1))][:-1])
def test_bit_rates_of_vorbis_are_those_of_the_library(rate, channels):
    rates = vorbis_bit_rates(rate, channels)

    def level(bit_rate):
        return libsndfile_options(FileFormat.OGG_VORBIS, rate, channels, bit_rate)["compression_level"]

    # The lowest and the highest bit rate are those of the qualities 0 and 10, within a kilobit.
    assert level(rates[0]) > 0.97
    assert level(rates[-1]) < 0.03
    assert level(rates[0] + 2) < 0.9999
    assert level(rates[-1] - 3) > 0.0


@pytest.mark.parametrize(
    ("rate", "bit_rate", "mode"),
    [(48_000, 64, "CONSTANT"), (48_000, 56, "AVERAGE"), (24_000, 64, "CONSTANT"), (8_000, 16, "AVERAGE")],
)
def test_mp3_is_constant_where_a_frame_can_hold_the_length(rate, bit_rate, mode):
    assert libsndfile_options(FileFormat.MP3, rate, 2, bit_rate)["bitrate_mode"] == mode


def test_lossless_formats_have_no_options():
    assert libsndfile_options(FileFormat.FLAC_24, 48_000, 2) == {}
