"""The tempo that a prompt names, such as "84 BPM"."""

from __future__ import annotations

import re

_TEMPO = re.compile(
    r"(\d{1,4}(?:\.\d+)?)\s*-?\s*(?:bpm|beats per minute)\b"
    r"|\b(?:bpm|tempo)\s*(?:of|at|is|:|=)?\s*(\d{2,3}(?:\.\d+)?)\b",
    re.IGNORECASE,
)


def parse_tempo(prompt: str) -> float | None:
    """Returns the tempo in beats per minute as it is written, or None if the prompt names none."""
    match = _TEMPO.search(prompt)
    return None if match is None else float(match[1] or match[2])
