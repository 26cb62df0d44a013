"""The main program of an engine process whose first message can't be used. The environment variable GARBAGE chooses one
of `MESSAGES`: of another version, of another kind, or with a damaged length."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys

MODULE = "tests.support.garbage_engine_process"

_FUTURE = b"cgeneration_service.processes.messages\nOfTheFuture\n."
_NUMBER = pickle.dumps(17)
MESSAGES = {
    "version": struct.pack("<Q", len(_FUTURE)) + _FUTURE,
    "kind": struct.pack("<Q", len(_NUMBER)) + _NUMBER,
    "length": struct.pack("<Q", 1 << 60),
}

if __name__ == "__main__":
    os.write(int(sys.argv[1]), MESSAGES[os.environ["GARBAGE"]])
    signal.pause()
