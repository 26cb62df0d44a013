"""What the child process of an actor does first: `python -m gateway.ray.child_launcher PARENT_PID MODULE ARGUMENT…`.

It becomes `python -m MODULE ARGUMENT…` by exec, and is killed when the actor ends in any way.
"""

from __future__ import annotations

import os
import sys

from service_runtime.supervision import end_with_parent

PARENT_ENDED_STATUS = 4
"""Exit status."""


def main() -> None:
    """Runs the command."""
    parent, *command = sys.argv[1:]
    end_with_parent(int(parent), PARENT_ENDED_STATUS)
    os.execv(sys.executable, [sys.executable, "-P", "-m", *command])  # noqa: S606  # No shell is wanted.


if __name__ == "__main__":
    main()
