"""What a check of this machine has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    state: Literal["ok", "missing", "broken"]
    """missing: optional and not installed. broken: configured or required, but it does not work."""
    found: str
    advice: str = ""
    """What to do; empty if the state is ok."""
