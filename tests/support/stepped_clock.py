"""A clock of its own for a process, which a test steps while the process runs.

libfaketime 0.9.10 can't be used for that: its clock_nanosleep() takes Python's sleeps, which end at a moment of the
monotonic clock, for moments of the faked one, and fails with EINVAL; and its time() waits for a lock, so that services
with many threads get several times slower.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


class SteppedClock:
    """`environment` makes a process have this clock. Steps are seen at once, also by a process that runs."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self._file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "STEPPED_CLOCK_FILE": str(file)}

    def set_step(self, seconds: int) -> None:
        """Sets how far the clock is ahead of the machine's."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", seconds))


def build_library(folder: Path) -> Path | None:
    """Returns the library that such clocks need, or None if this machine has no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "stepped_clock.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library
