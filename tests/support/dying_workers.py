"""`python -m tests.support.dying_workers URL COUNT`: worker processes that create, claim and finish generations until
they are killed. Each acknowledged call is written to standard output as a line with a JSON array: the process id, the
call, its arguments and its answer."""

from __future__ import annotations

import json
import os
import random
import sys
import uuid
from dataclasses import asdict

from storage_service.db.database import Database
from tests.support.lifecycle_calls import make
from tests.support.lifecycle_model import Answer, Call, Request


def _tell(call: Call, answer: Answer) -> None:
    # A single write of less than PIPE_BUF bytes, so that lines of several processes don't mix.
    line = json.dumps([os.getpid(), call.name, call.arguments, answer], default=asdict)
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def _work(url: str, seed: int) -> None:
    database = Database(url, busy_timeout_seconds=20)
    dice = random.Random(seed)

    def call(name: str, *arguments: object) -> Answer:
        made = Call(name, arguments)
        answer = make(database, made)
        _tell(made, answer)
        return answer

    while True:
        call("create", [Request(request_id=str(uuid.uuid4()))])
        claimed = call("claim", f"w{seed}", ["small"], 600.0)
        if claimed is None:
            continue
        key, token, _ = claimed
        match dice.randrange(5):
            case 0:
                call("fail", key, token, True)
            case 1:
                call("hand_back", key, token)
            case 2:
                call("cancel", key)
            case _:
                call("complete", key, token, f"{token}.wav", 1000, 1.0)


def main(url: str, count: int) -> None:
    for seed in range(count):
        if os.fork() == 0:
            try:
                _work(url, seed)
            finally:
                os._exit(1)
    for _ in range(count):
        os.wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
