"""The tempo that a prompt names, such as "84 BPM"."""

from __future__ import annotations

import re

_TEMPO = re.compile(
    r"(\d{1,4}(?:\.\d+)?) ?-? ?(?:bpm|beats per minute)\b"
    r"|\b(?:bpm|tempo) ?(?:of|at|is|:|=)? ?(\d{2,3}(?:\.\d+)?)\b",
    re.IGNORECASE,
)
"""In a text whose words one space separates: a repetition of spaces would be matched in as many ways as it is long, and
a prompt of 10,000 of them would block the server for seconds."""


def parse_tempo(prompt: str) -> float | None:
    """Returns the tempo in beats per minute as it is written, or None if the prompt names none."""
    match = _TEMPO.search(" ".join(prompt.split()))
    return None if match is None else float(match[1] or match[2])
