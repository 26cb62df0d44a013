"""Gives each server of a machine a port of its own, counted up from the first: other machines know where to look."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

MAX_PORTS = 64
"""How many ports are tried."""


class PortReservation:
    """A port that no other server started here takes, as long as this process lives and this object is not closed."""

    def __init__(self, host: str, first: int) -> None:
        """Reserves the first free port. Raises OSError if there is none, or if the host is not this machine."""
        self._stack = ExitStack()
        self.port = next((port for port in range(first, first + MAX_PORTS) if self._reserve(host, port)), 0)
        if not self.port:
            raise OSError(errno.EADDRINUSE, f"no port of {host} from {first} to {first + MAX_PORTS - 1} is free")

    def close(self) -> None:
        """Gives the port back."""
        self._stack.close()

    def _reserve(self, host: str, port: int) -> bool:
        with ExitStack() as stack:
            try:
                # A name in the abstract namespace is free again as soon as the process that bound it has ended.
                lock = stack.enter_context(socket.socket(socket.AF_UNIX))
                lock.bind(f"\0dgx-music-port-{host}-{port}")
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                socket.create_server((host, port), family=family).close()  # Another program may use it.
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
                raise
            self._stack = stack.pop_all()
        return True
