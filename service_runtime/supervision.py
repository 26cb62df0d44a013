"""The error that only a restart of the process can clear."""

from __future__ import annotations

from dgx_music.errors import Unavailable


class UnrecoverableError(Unavailable):
    """Something the service needs will not work again in this process, e.g. the CUDA context after a fatal error.

    The caller gets UNAVAILABLE. The server drains and exits with an error so that its supervisor restarts it.
    """
