"""Guards the figures that a file can do without: if one can't be measured, the file is written nevertheless."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service_runtime.observability.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class NotMeasured:
    """A figure that has no value because of an error, although the audio allows it."""

    name: str
    """For example "tempo"."""
    reason: str


class FigureGuard:
    """Collects the figures that could not be measured."""

    def __init__(self) -> None:
        self.failures: tuple[NotMeasured, ...] = ()

    @contextmanager
    def guard(self, *names: str) -> Iterator[None]:
        """Suppresses any error of the block, logs it, and records that these figures have no value."""
        try:
            yield
        except Exception as error:
            log.error("figure_not_measured", figures=names, exc_info=error)
            reason = f"an unexpected error occurred ({type(error).__name__}); the export service's log shows it"
            self.failures += tuple(NotMeasured(name, reason) for name in names)
