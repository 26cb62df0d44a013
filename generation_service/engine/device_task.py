"""A task that the device thread runs between two steps, such as loading a model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DeviceTask:
    """A function to run once on the device thread, and the future of its caller."""

    function: Callable[[], None]
    future: Future[None] = field(default_factory=Future)

    def run(self) -> Exception | None:
        """Runs the function unless the caller has cancelled the future. Returns the exception it raised, if any, which
        the future also carries."""
        if not self.future.set_running_or_notify_cancel():
            return None
        try:
            self.function()
        except Exception as error:
            self.future.set_exception(error)
            return error
        self.future.set_result(None)
        return None

    def reject(self, error: Exception) -> None:
        """Fails the future without running the function."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
