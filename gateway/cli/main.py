"""The entry point of `dgx-music`, which handles signals before it imports the rest: that takes a tenth of a second."""

from __future__ import annotations

from gateway.cli.session.stop_signals import exit_on_signal


def main() -> None:
    """Runs the command line of this process, and exits."""
    exit_on_signal()
    from gateway.cli import invocation

    invocation.run_process()
