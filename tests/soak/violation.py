"""What a soak must never see."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Violation(Exception):
    """Something that the product promises, and did not keep."""

    kind: str
    """In few words, the same for the same failure: a shorter schedule that fails must fail in this way."""
    subject: str
    """The job or the service."""
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.problem}"
