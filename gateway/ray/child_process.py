"""Runs `dgx-music serve SERVICE` as the child process of an actor, which it doesn't outlive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import gateway

BAD_SETTING = 2
"""Exit status of a server of which a setting is not valid: starting it again would not help."""
LAUNCHER = "gateway.ray.child_launcher"
KILLED_SECONDS = 10.0
"""How long the kernel may take to end a process that was killed, and with it the engine processes."""
_PACKAGE_PARENT = str(Path(gateway.__file__).parents[1])


class ChildProcess:
    """A server. What it logs goes to standard error, which Ray keeps as the log of the actor."""

    def __init__(self, module: str, arguments: tuple[str, ...], on_exit: Callable[[int, float], None]) -> None:
        """Starts `python -m MODULE ARGUMENTS` with the environment of this process.

        `on_exit` is called in a thread when it has ended, unless `stop` ended it, with its exit status and the seconds
        that it ran.
        """
        self.last_error = ""
        """The last error that it printed or, while it is NOT_SERVING, the reason."""
        self.has_served = False
        """Whether it has accepted calls at any time."""
        self._on_exit = on_exit
        self._is_stopping = False
        self._process: subprocess.Popen[str] | None = None
        self._started = threading.Event()
        # The kernel takes the thread that starts a process for its parent: this one lives as long as the process.
        self._thread = threading.Thread(target=self._run, args=(module, arguments), daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def pid(self) -> int:
        """0 if it could not be started."""
        return 0 if self._process is None else self._process.pid

    def stop(self, seconds: float) -> None:
        """Sends SIGTERM, so that the server drains, and returns when it has ended; it is killed after `seconds`."""
        self._is_stopping = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            self._thread.join(seconds)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._thread.join(KILLED_SECONDS)

    def _run(self, module: str, arguments: tuple[str, ...]) -> None:
        # The working folder is not on the path (-P), since any file in it could hide a module; this package is.
        path = os.pathsep.join(filter(None, (_PACKAGE_PARENT, os.environ.get("PYTHONPATH", ""))))
        started_at = time.monotonic()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", LAUNCHER, str(os.getpid()), module, *arguments],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # What Ray sends to the group of the actor is for the actor: it drains first.
            )
        finally:
            self._started.set()
        self._process = process
        assert process.stderr is not None
        reader = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        reader.start()
        status = process.wait()
        reader.join(KILLED_SECONDS)  # What it printed last says why it ended.
        if not self._is_stopping:
            self._on_exit(status, time.monotonic() - started_at)

    def _read(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                self.last_error = find_error(line, self.last_error)
                self.has_served = self.has_served or '"serving"' in line
                with suppress(OSError, ValueError):
                    sys.stderr.write(line)
                    sys.stderr.flush()


def find_error(line: str, last_error: str) -> str:
    """Returns the error that this line of a log tells, or `last_error` if it tells none. One that is over is none."""
    if line.startswith("error: "):
        return line.removeprefix("error: ").strip()
    with suppress(ValueError):
        match json.loads(line):
            case {"event": "not_serving", "error": str(error)}:
                return error
            case {"event": "serving_again"}:
                return ""
    return last_error
