"""An export service in a process of its own, of which any step that changes the file system can be made to fail, or
to be the one at which it is killed: opening a file to write it, renaming, deleting, creating a folder, changing times
or access rights, syncing.

Python announces these steps to audit hooks before they are taken, so that none of them is left out, whatever code takes
it. Steps that write to open files are not announced; for those there are failpoints.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from export_service.rpc.server import main
from tests.support.export_servers import CONTROL_VARIABLE

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.chmod", "os.truncate", "shutil.rmtree"}


class FaultySteps:
    """Counts the steps below a folder, and fails one of them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._steps: list[str] = []
        self._fault, self._at = "", 0

    def arm(self, fault: str, at: int) -> list[str]:
        """From now on, the step with this number, counted from 1, fails with this errno, or kills the process ("kill").
        Returns the steps that were taken until now, since the last call.
        """
        with self._lock:
            steps, self._steps, self._fault, self._at = self._steps, [], fault, at
        return steps

    def take(self, event: str, path: Any) -> None:
        """Counts a step if it changes something below the folder."""
        path = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
        if not path.startswith(self._folder):
            return
        with self._lock:
            self._steps.append(f"{event} {Path(path).suffix}")
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
            self.take(event, arguments[0])

    def fsync(self, descriptor: int) -> None:
        self.take("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        os_fsync(descriptor)


os_fsync = os.fsync


def obey(steps: FaultySteps, commands: str, answers: str) -> None:
    """Carries out commands such as "ENOSPC 3", and answers each with the steps since the last one."""
    with open(commands) as reader, open(answers, "w") as writer:
        for command in reader:
            fault, at = command.split()
            print(",".join(steps.arm(fault, int(at))), file=writer, flush=True)


if __name__ == "__main__":
    steps = FaultySteps(os.environ["DGX_MUSIC_DATA_DIR"])
    os.fsync = steps.fsync
    threading.Thread(target=obey, args=(steps, *os.environ[CONTROL_VARIABLE].split()), daemon=True).start()
    sys.addaudithook(steps.hook)
    main()
