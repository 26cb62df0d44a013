"""Parses ages, durations, times and sizes that the user typed, and formats sizes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from gateway.cli.session.command_errors import BAD_INPUT, CommandError

AGE = re.compile(r"(?P<number>[0-9]{1,5})(?P<unit>[hdw])")
DATE = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}")
AGE_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
DURATION = re.compile(r"(?P<number>[0-9]{1,5})(?P<unit>[mhdw])")
DURATION_UNITS = AGE_UNITS | {"m": timedelta(minutes=1)}
SIZE = re.compile(r"(?P<number>[0-9]{1,6}(?:[.][0-9]{1,3})?)(?P<unit>MB|GB|TB)")
SIZE_UNITS = {"MB": 1e6, "GB": 1e9, "TB": 1e12}


def parse_age(text: str, option: str) -> timedelta:
    """Parses an age such as "30d". Raises CommandError if it is not one."""
    match = AGE.fullmatch(text)
    if match is None:
        raise CommandError(f"{option}: {text!r} is not a valid age; use for example 30d, 12h or 2w", BAD_INPUT)
    return int(match["number"]) * AGE_UNITS[match["unit"]]


def parse_duration(text: str, option: str, maximum: timedelta) -> timedelta:
    """Parses a duration such as "30m". Raises CommandError if it is none, zero, or above the maximum, in whole days."""
    match = DURATION.fullmatch(text)
    duration = int(match["number"]) * DURATION_UNITS[match["unit"]] if match else timedelta()
    if not timedelta() < duration <= maximum:
        examples = f"use for example 30m or 12h, at most {maximum.days}d"
        raise CommandError(f"{option}: {text!r} is not a valid duration; {examples}", BAD_INPUT)
    return duration


def parse_time(text: str, option: str, *, is_end: bool = False) -> datetime:
    """Parses an age such as "3d", or a date or time of ISO 8601, by default in the local time zone.

    A date is the beginning of that day, or with `is_end` the beginning of the next one. Raises CommandError.
    """
    try:
        if AGE.fullmatch(text):
            return datetime.now().astimezone() - parse_age(text, option)
        moment = datetime.fromisoformat(text)
        if is_end and DATE.fullmatch(text):
            moment += timedelta(days=1)
        moment = moment.astimezone()
        moment.timestamp()
    except (ValueError, OverflowError) as error:
        raise CommandError(
            f"{option}: {text!r} is not a valid time; use for example 2h, 3d, 1w, 2026-11-29 or 2026-11-29T18:30",
            BAD_INPUT,
        ) from error
    return moment


def parse_size(text: str, option: str) -> int:
    """Parses a size such as "50GB" to bytes; a GB is 10^9 bytes. Raises CommandError if it is not a size."""
    match = SIZE.fullmatch(text)
    if match is None:
        raise CommandError(f"{option}: {text!r} is not a valid size; use for example 50GB, 500MB or 1.5TB", BAD_INPUT)
    return round(float(match["number"]) * SIZE_UNITS[match["unit"]])


def format_size(size_bytes: int) -> str:
    """Returns for example "3.1 MB", or "40 kB" if it is below 0.1 MB."""
    if size_bytes < SIZE_UNITS["MB"] / 10:
        return f"{size_bytes / 1e3:.0f} kB"
    unit = "GB" if size_bytes >= SIZE_UNITS["GB"] else "MB"
    return f"{size_bytes / SIZE_UNITS[unit]:.1f} {unit}"
