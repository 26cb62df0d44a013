"""Names of files in headers."""

from __future__ import annotations

from email.message import Message
from urllib.parse import unquote

import pytest

from gateway.studio.finished_file import content_disposition


@pytest.mark.parametrize("name", ["a b.wav", 'a"b\\c.wav', "猫🎹.wav", "100% a;b=c, d'e.wav", "a\nb\r\nSet-Cookie: x"])
def test_any_name_fits_into_the_header_and_comes_back(name: str) -> None:
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert unquote(header.rpartition("filename*=UTF-8''")[2]) == name
    message = Message()
    message["content-disposition"] = header
    assert message.get_content_disposition() == "attachment"
    assert content_disposition(name, is_download=False).startswith("inline; ")
