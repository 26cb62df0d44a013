"""The error after which only a new process helps."""

from __future__ import annotations

from dgx_music.errors import Unavailable


class UnrecoverableError(Unavailable):
    """Something that the service needs will not work again in this process, e.g. the CUDA context after a fatal error.

    A caller sees UNAVAILABLE. The server drains and exits with an error, so that its supervisor starts it anew.
    """
