"""Failpoints: places at which a test makes a process fail, around a commit, an fsync, a rename, a chunk or a call.

`DGX_MUSIC_FAILPOINT=<point>:<action>`, set when the process is started, arms a failpoint. Several are
separated by commas:

    storage.before_commit:kill      the process is killed by SIGKILL when it reaches the point
    storage.before_commit:kill@3    … when it reaches the point for the third time
    generation.before_chunk:stop@3  the process is stopped by SIGSTOP, once, until it is continued
    export.before_rename:ENOSPC     the point raises OSError with this errno each time; with @3 from the third time on
    export.tempo_estimation:raise   the point raises RuntimeError, as an unexpected fault of the code around it would

If the variable is not set, a failpoint costs one comparison.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading

ENVIRONMENT_VARIABLE = "DGX_MUSIC_FAILPOINT"

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_SPECIFICATION = re.compile(
    r"(?P<point>[a-z_.]+):(?P<action>kill|stop|raise|E[A-Z0-9]+)(?:@(?P<first_hit>[1-9][0-9]*))?"
)


class Failpoint:
    """An armed failpoint. Raises ValueError if `specification` is not valid."""

    def __init__(self, specification: str) -> None:
        match = _SPECIFICATION.fullmatch(specification)
        if match is None or (match["action"][0] == "E" and not hasattr(errno, match["action"])):
            raise ValueError(
                f"{ENVIRONMENT_VARIABLE}={specification}: must be POINT:kill, POINT:stop, POINT:raise or POINT:ERRNO, "
                "optionally followed by @N to act from the Nth time on"
            )
        self.point = match["point"]
        self._action = match["action"]
        self._hits_left = int(match["first_hit"] or 1)

    def hit(self) -> None:
        """Counts one more hit. The Nth sends the process the signal; the Nth and all later ones raise the error."""
        self._hits_left -= 1
        if self._hits_left > 0:
            return
        if self._action in _SIGNALS:
            if self._hits_left == 0:
                # To this thread: a signal to the process may reach another first, and this one would go on until then.
                signal.pthread_kill(threading.get_ident(), _SIGNALS[self._action])
        elif self._action == "raise":
            raise RuntimeError(f"failpoint {self.point}")
        else:
            number = int(getattr(errno, self._action))
            raise OSError(number, os.strerror(number), self.point)


def _arm(specifications: str) -> dict[str, Failpoint]:
    armed = (Failpoint(one) for one in specifications.split(",") if one)
    return {one.point: one for one in armed}


_armed = _arm(os.environ.get(ENVIRONMENT_VARIABLE, ""))


def failpoint(point: str) -> None:
    """Marks a place in the code at which a test can make the process fail."""
    if _armed and point in _armed:
        _armed[point].hit()
