"""The names of the library's files, as a server states them."""

from __future__ import annotations

import re

from dgx_music.errors import DataLoss

_NAME = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\.[a-z0-9]{1,10}")
"""A UUID and an extension."""


def check_library_name(name: str) -> str:
    """Returns the name. Raises DataLoss for one that the library gives no file: saved under that name, a download could
    replace a file of the user's."""
    if not _NAME.fullmatch(name):
        raise DataLoss(
            f"the server names the file {name[:100]!r}, but its name must be an id and an extension; give a path of "
            "your own to save it under",
            reason="FILE_NAME_INVALID",
        )
    return name
