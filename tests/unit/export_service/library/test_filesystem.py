"""What errors of the disk mean to a caller."""

from __future__ import annotations

import os

import pytest

from dgx_music.errors import ResourceExhausted, Unavailable
from export_service.library import filesystem


@pytest.mark.parametrize(
    ("code", "error"), [("ENOSPC", ResourceExhausted), ("EROFS", Unavailable), ("EIO", Unavailable)]
)
def test_what_a_disks_refusal_means(code, error):
    number = getattr(filesystem.errno, code)
    with pytest.raises(error) as raised, filesystem.disk_errors("writing the file"):
        raise OSError(number, os.strerror(number))
    assert raised.value.retry_after_seconds > 0
    assert "writing the file" in raised.value.message
