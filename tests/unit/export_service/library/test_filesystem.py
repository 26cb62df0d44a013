"""Errors of the disk as service errors."""

from __future__ import annotations

import errno
import os

import pytest

from dgx_music.errors import ResourceExhausted, Unavailable
from export_service.library.filesystem import translate_disk_errors


@pytest.mark.parametrize(
    ("code", "error"), [("ENOSPC", ResourceExhausted), ("EROFS", Unavailable), ("EIO", Unavailable)]
)
def test_disk_error_becomes_service_error_with_retry_delay(code, error):
    number = getattr(errno, code)
    with pytest.raises(error, match="writing the file") as raised, translate_disk_errors("writing the file"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in raised.value.message
    assert raised.value.retry_after_seconds > 0
