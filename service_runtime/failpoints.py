"""Points at which a test breaks a process off, where it matters most: around a commit, an fsync, a rename.

`DGX_MUSIC_FAILPOINT=<point>:<action>` arms one point of a process that is started with it:

    storage.before_commit:kill      the process ends by SIGKILL when it gets there
    storage.before_commit:kill@3    … when it gets there for the third time
    export.before_rename:ENOSPC     the point raises OSError of this errno, each time; with @3 from the third time on

Where the variable is not set, a point costs one comparison.
"""

from __future__ import annotations

import errno
import os
import re
import signal

VARIABLE = "DGX_MUSIC_FAILPOINT"

_FORM = re.compile(r"(?P<point>[a-z_.]+):(?P<action>kill|E[A-Z0-9]+)(?:@(?P<passing>[1-9][0-9]*))?")


class Failpoint:
    """One armed point. Raises ValueError where `text` is none."""

    def __init__(self, text: str) -> None:
        form = _FORM.fullmatch(text)
        if form is None or (form["action"] != "kill" and not hasattr(errno, form["action"])):
            raise ValueError(f"{VARIABLE}={text}: must be POINT:kill or POINT:ERRNO, with @N from the Nth time on")
        self.point = form["point"]
        self._errno = None if form["action"] == "kill" else int(getattr(errno, form["action"]))
        self._passings_left = int(form["passing"] or 1)

    def reached(self) -> None:
        """What was asked for, once it is time."""
        self._passings_left -= 1
        if self._passings_left > 0:
            return
        if self._errno is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise OSError(self._errno, os.strerror(self._errno), self.point)


_armed = Failpoint(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def failpoint(point: str) -> None:
    """Where the code calls this, it can be broken off."""
    if _armed is not None and _armed.point == point:
        _armed.reached()
