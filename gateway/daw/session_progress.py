"""How far the export of a session is: what is done now, and the share of the whole that is done."""

from __future__ import annotations

from collections.abc import Callable

ReportProgress = Callable[[str, float], None]
"""Gets what is done now, for a person, and the share that is done, from 0 to 1."""


class SessionProgress:
    """Adds up steps, each of which is a part of the whole."""

    def __init__(self, report: ReportProgress | None, total: float) -> None:
        """The weights of all steps add up to `total`."""
        self._report, self._total = report, total
        self._text, self._done, self._weight = "", 0.0, 0.0

    def begin(self, text: str, weight: float) -> None:
        """Begins a step; the one before is done."""
        self._done += self._weight
        self._text, self._weight = text, weight
        self.advance(0.0)

    def advance(self, share: float) -> None:
        """Says how much of the step is done, from 0 to 1."""
        if self._report is not None:
            self._report(self._text, min(1.0, (self._done + self._weight * share) / self._total))
