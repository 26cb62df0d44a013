"""Failpoints: places at which a test makes a process fail, around a commit, an fsync or a rename.

`DGX_MUSIC_FAILPOINT=<point>:<action>`, set when the process is started, arms one failpoint:

    storage.before_commit:kill      the process is killed by SIGKILL when it reaches the point
    storage.before_commit:kill@3    … when it reaches the point for the third time
    export.before_rename:ENOSPC     the point raises OSError with this errno each time; with @3 from the third time on
    export.tempo_estimation:raise   the point raises RuntimeError, as an unexpected fault of the code around it would

If the variable is not set, a failpoint costs one comparison.
"""

from __future__ import annotations

import errno
import os
import re
import signal

ENVIRONMENT_VARIABLE = "DGX_MUSIC_FAILPOINT"

_SPECIFICATION = re.compile(r"(?P<point>[a-z_.]+):(?P<action>kill|raise|E[A-Z0-9]+)(?:@(?P<first_hit>[1-9][0-9]*))?")


class Failpoint:
    """An armed failpoint. Raises ValueError if `specification` is not valid."""

    def __init__(self, specification: str) -> None:
        match = _SPECIFICATION.fullmatch(specification)
        if match is None or (match["action"] not in ("kill", "raise") and not hasattr(errno, match["action"])):
            raise ValueError(
                f"{ENVIRONMENT_VARIABLE}={specification}: must be POINT:kill, POINT:raise or POINT:ERRNO, "
                "optionally followed by @N to act from the Nth time on"
            )
        self.point = match["point"]
        self._action = match["action"]
        self._hits_left = int(match["first_hit"] or 1)

    def hit(self) -> None:
        """Counts one more hit and, from the Nth hit on, kills the process or raises the error."""
        self._hits_left -= 1
        if self._hits_left > 0:
            return
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._action == "raise":
            raise RuntimeError(f"failpoint {self.point}")
        else:
            number = int(getattr(errno, self._action))
            raise OSError(number, os.strerror(number), self.point)


_armed = Failpoint(os.environ[ENVIRONMENT_VARIABLE]) if os.environ.get(ENVIRONMENT_VARIABLE) else None


def failpoint(point: str) -> None:
    """Marks a place in the code at which a test can make the process fail."""
    if _armed is not None and _armed.point == point:
        _armed.hit()
