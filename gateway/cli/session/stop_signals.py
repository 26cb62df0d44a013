"""Ctrl-C, SIGTERM, and SIGHUP of a closed terminal, while no event loop handles them. Imports next to nothing."""

from __future__ import annotations

import os
import signal
import sys

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LINE = "interrupted\n"
JSON_LINE = (
    '{"error": {"code": "CANCELLED", "reason": "INTERRUPTED", "message": "interrupted", "field": null, '
    '"retry_after_seconds": null}}\n'
)


class Interrupted(SystemExit):
    """A signal ended the command. As a SystemExit, it passes through libraries, and through an event loop."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.exit_status = 128 + number


def handled_signals() -> list[signal.Signals]:
    """Returns those of `STOP_SIGNALS` that end a command: under nohup, and in a script's background, some do not."""
    return [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def exit_on_signal() -> None:
    """Makes a signal print its line and end the process at once."""
    for number in handled_signals():
        signal.signal(number, _exit)


def raise_on_signal() -> None:
    """Makes the first signal raise Interrupted, so that what is half-written is removed, and the second one end the
    process at once."""
    for number in handled_signals():
        signal.signal(number, _raise)


def ignore_signals() -> None:
    """Lets the interpreter end in peace, which would else restore the defaults before it does: all is done."""
    for number in handled_signals():
        signal.signal(number, signal.SIG_IGN)


def received_signal() -> int:
    """Returns the signal that was raised as Interrupted, which may have been swallowed since, for example by
    Python when it creates a class; 0 if none was."""
    return _received


_received = 0


def _exit(number: int, frame: object) -> None:
    line = JSON_LINE if "--json" in sys.argv else LINE
    try:  # noqa: SIM105  # contextlib takes longer to import than the rest of this module.
        os.write(2, line.encode())
    except OSError:
        pass  # Nobody reads it.
    os._exit(128 + number)


def _raise(number: int, frame: object) -> None:
    global _received
    _received = number
    exit_on_signal()
    raise Interrupted(number)
