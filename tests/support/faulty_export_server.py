"""An export service in a process of its own, of which any step that changes the file system can be made to fail, or
to be the one at which it is killed: opening a file to write it, renaming, deleting, creating a folder, changing times
or access rights, syncing. A service that was killed is started again, as a service manager does.

Python announces these steps to audit hooks before they are taken, so that none of them is left out, whatever code takes
it. Steps that write to open files are not announced; for those there are failpoints.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from typing import Any

import soundfile  # noqa: F401  # Before the forks.
import soxr  # noqa: F401

from export_service.dsp.loudness import warm_up
from export_service.rpc.server import main
from tests.support.export_servers import CONTROL_VARIABLE, TO

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MOVING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
"""Steps after which other files are there."""
EVENTS = {*MOVING, "os.utime", "os.chmod", "os.truncate"}
IN_FOLDER = {"os.remove": 1, "os.rmdir": 1}
"""Position of the descriptor of the folder that a path is relative to."""


class FaultySteps:
    """Counts the steps below a folder, and fails one of them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._steps: list[str] = []
        self._fault, self._at = "", 0

    def arm(self, fault: str, at: int) -> list[str]:
        """From now on, the step with this number, counted from 1, fails with this errno; or with "kill", the process is
        killed at the step with this number among those after which other files are there. Returns the steps that were
        taken until now, since the last call.
        """
        with self._lock:
            steps, self._steps, self._fault, self._at = self._steps, [], fault, at
        return steps

    def take(self, event: str, path: str, target: str = "") -> None:
        """Counts a step if it changes something below the folder. To remove what is not there is none."""
        if not path.startswith(self._folder) or (event == "os.remove" and not os.path.lexists(path)):
            return
        with self._lock:
            if self._fault == "kill" and event not in MOVING:
                return
            self._steps.append(f"{event} {path}{target and TO}{target}")
            is_hit = len(self._steps) == self._at
            fault = self._fault
        if is_hit and fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif is_hit and fault:
            number = int(getattr(errno, fault))
            raise OSError(number, os.strerror(number))

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS or (
            event == "open" and len(arguments) == 3 and isinstance(arguments[2], int) and arguments[2] & WRITE_FLAGS
        ):
            path = arguments[0]
            path = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
            if event in IN_FOLDER and (folder := arguments[IN_FOLDER[event]]) >= 0:
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
            self.take(event, path, os.fsdecode(arguments[1]) if event == "os.rename" else "")

    def fsync(self, descriptor: int) -> None:
        self.take("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        os_fsync(descriptor)


os_fsync = os.fsync


def obey(steps: FaultySteps, commands: str, answers: str) -> None:
    """Carries out commands such as "ENOSPC 3", and answers each with this process and the steps since the last one."""
    with open(commands) as reader, open(answers, "w") as writer:
        for command in reader:
            fault, at = command.split()
            print(os.getpid(), *steps.arm(fault, int(at)), sep=",", file=writer, flush=True)


def fork_again() -> None:
    """Returns in a fork of this process, which needs no time to import what the service does; and in another one when
    that was killed. This process ends when its fork does.
    """
    forks: list[int] = []

    def stop(*_: object) -> None:
        for fork in forks:
            os.kill(fork, signal.SIGTERM)

    while True:
        signal.signal(signal.SIGTERM, stop)
        fork = os.fork()
        if not fork:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return
        forks[:] = [fork]
        ended = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
        forks.clear()
        if ended != -signal.SIGKILL:
            sys.exit(ended)


if __name__ == "__main__":
    warm_up()
    fork_again()
    steps = FaultySteps(os.environ["DGX_MUSIC_DATA_DIR"])
    os.fsync = steps.fsync
    threading.Thread(target=obey, args=(steps, *os.environ[CONTROL_VARIABLE].split()), daemon=True).start()
    sys.addaudithook(steps.hook)
    main()
