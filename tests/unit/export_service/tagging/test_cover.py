"""Cover pictures: what is accepted, and that anything else is refused with what to do."""

from __future__ import annotations

import pytest

from dgx_music.errors import InvalidArgument
from dgx_music.limits import MAX_COVER_BYTES
from export_service.tagging.cover import parse_cover
from tests.support.pictures import jpeg, png


@pytest.mark.parametrize("size", [(1, 1), (64, 48), (500, 700)])
def test_size_and_type_of_pictures(size):
    cover = parse_cover(png(*size), "cover")
    assert (cover.media_type, cover.width, cover.height, cover.data) == ("image/png", *size, png(*size))
    for options in ({}, {"progressive": True}, {"comment": b"hello \xff\xd9"}, {"exif": b"Exif\0\0" + bytes(3000)}):
        cover = parse_cover(jpeg(*size, **options), "cover")
        assert (cover.media_type, cover.width, cover.height) == ("image/jpeg", *size)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "PNG or JPEG"),
        (b"GIF89a" + bytes(100), "PNG or JPEG"),
        (png()[:-1], "truncated"),
        (png()[:30], "truncated"),
        (png()[:10], "truncated"),
        (png().replace(b"IHDR", b"IDHR"), "truncated"),
        (jpeg()[:-2], "truncated"),
        (jpeg()[:100], "truncated"),
        (jpeg()[:3], "truncated"),
        (b"\xff\xd8\xff\xe0\0\0" + bytes(100), "truncated"),
        (png()[:16] + bytes(8) + png()[24:], "truncated"),
        (png().ljust(MAX_COVER_BYTES + 1, b"\0"), "3 MiB"),
    ],
)
def test_other_data_is_refused(data, problem):
    with pytest.raises(InvalidArgument, match=problem) as raised:
        parse_cover(data, "request.cover")
    assert raised.value.field == "request.cover"


def test_largest_cover():
    assert len(parse_cover(png().ljust(MAX_COVER_BYTES, b"\0"), "cover").data) == MAX_COVER_BYTES
