"""What the device thread is asked to do between two steps."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do, once, and who waits for it."""

    do: Callable[[], None]
    done: Future[None] = field(default_factory=Future)

    def run(self) -> Exception | None:
        """Does it unless nobody waits any more; gives the exception that it raised, which whoever waits has got."""
        if not self.done.set_running_or_notify_cancel():
            return None
        try:
            self.do()
        except Exception as error:
            self.done.set_exception(error)
            return error
        self.done.set_result(None)
        return None

    def refuse(self, error: Exception) -> None:
        """Tells whoever waits that it is not done."""
        if self.done.set_running_or_notify_cancel():
            self.done.set_exception(error)
