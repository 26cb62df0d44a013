"""What supervises a process, and what it does for that: it ends when its parent ends, or when only a restart helps."""

from __future__ import annotations

import os
import signal
import sys

from dgx_music.errors import Unavailable

_PR_SET_PDEATHSIG = 1
"""https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html"""


class UnrecoverableError(Unavailable):
    """Something the service needs will not work again in this process, e.g. the CUDA context after a fatal error.

    The caller gets UNAVAILABLE. The server drains and exits with an error so that its supervisor restarts it.
    """


def end_with_parent(parent: int, status: int) -> None:
    """Has the kernel kill this process when its parent, of this id, ends; exits with `status` if it has ended already.

    It also holds for what this process becomes by exec. Elsewhere than on Linux, only the second part is done.
    """
    if sys.platform == "linux":
        import ctypes  # Most processes do without it.

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(status)
