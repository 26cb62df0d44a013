"""Ages and sizes as they are typed."""

from __future__ import annotations

import re
from datetime import timedelta

from gateway.cli.session.command_errors import BAD_INPUT, CommandError

AGE = re.compile(r"(?P<number>[0-9]{1,5})(?P<unit>[hdw])")
AGE_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
SIZE = re.compile(r"(?P<number>[0-9]{1,6}(?:[.][0-9]{1,3})?)(?P<unit>MB|GB|TB)")
SIZE_UNITS = {"MB": 1e6, "GB": 1e9, "TB": 1e12}


def age_of(text: str, option: str) -> timedelta:
    """E.g. of "30d". Raises CommandError where it is no age."""
    form = AGE.fullmatch(text)
    if form is None:
        raise CommandError(f"{option}: {text!r} is no age; write e.g. 30d, 12h or 2w", BAD_INPUT)
    return int(form["number"]) * AGE_UNITS[form["unit"]]


def bytes_of(text: str, option: str) -> int:
    """E.g. of "50GB", a GB being 10^9 bytes. Raises CommandError where it is no size."""
    form = SIZE.fullmatch(text)
    if form is None:
        raise CommandError(f"{option}: {text!r} is no size; write e.g. 50GB, 500MB or 1.5TB", BAD_INPUT)
    return round(float(form["number"]) * SIZE_UNITS[form["unit"]])


def in_words(size_bytes: int) -> str:
    """E.g. "3.1 MB"."""
    unit = "GB" if size_bytes >= SIZE_UNITS["GB"] else "MB"
    return f"{size_bytes / SIZE_UNITS[unit]:.1f} {unit}"
