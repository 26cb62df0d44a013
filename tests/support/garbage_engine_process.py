"""The main program of an engine process whose messages can't be read, as those of another version."""

from __future__ import annotations

import os
import signal
import struct
import sys

MODULE = "tests.support.garbage_engine_process"

if __name__ == "__main__":
    pickled = b"cgeneration_service.processes.messages\nOfTheFuture\n."
    os.write(int(sys.argv[1]), struct.pack("<Q", len(pickled)) + pickled)
    signal.pause()
