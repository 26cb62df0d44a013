"""What requests to a real S3 server cost: SeaweedFS on loopback, called as export calls it."""

from __future__ import annotations

import os
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from tests.support.s3_server import S3Server

PART_BYTES = 16 << 20
FILE_BYTES = 30 * 192_000
"""30 s of 32 kHz stereo in 24 bits."""
FILES, SMALL_FILES, READS = 12, 300, 40
LISTS = 10


@dataclass(frozen=True)
class ObjectCost:
    """One request, one after another."""

    milliseconds: float
    client_cpu_milliseconds: float
    server_cpu_milliseconds: float


def measure_objects(server: S3Server, bucket: str) -> dict[str, ObjectCost]:
    """Puts files of 30 s and 3 min, reads ranges of them, and lists by prefix among many."""
    store: Any = server.store(bucket)
    file, long_file = os.urandom(FILE_BYTES), os.urandom(6 * FILE_BYTES)
    keys = [f"outputs/{uuid.uuid4()}/1.wav" for _ in range(SMALL_FILES)]

    def measure(count: int, call: Callable[[int], object]) -> ObjectCost:
        process, times = psutil.Process(server.pid), []
        client, served = time.process_time(), sum(process.cpu_times()[:2])
        for number in range(count):
            started_at = time.perf_counter()
            call(number)
            times.append(time.perf_counter() - started_at)
        client, served = time.process_time() - client, sum(process.cpu_times()[:2]) - served
        return ObjectCost(statistics.median(times) * 1e3, client / count * 1e3, served / count * 1e3)

    def read(number: int) -> None:
        store.get_range(keys[number % FILES], start=number * 65536, length=1 << 20)

    def find(number: int) -> None:
        assert sum(map(len, store.list(keys[number].rpartition("/")[0]))) == 1

    def list_all(_: int) -> None:
        assert sum(map(len, store.list("outputs"))) == SMALL_FILES

    return {
        "PUT, 1 kB": measure(SMALL_FILES, lambda number: store.put(keys[number], b"x" * 1024, use_multipart=False)),
        "PUT, 5.8 MB (30 s)": measure(FILES, lambda number: store.put(keys[number], file, use_multipart=False)),
        "PUT, 35 MB (3 min) in parts of 16 MiB": measure(
            FILES // 2, lambda number: store.put(f"long/{number}", long_file, chunk_size=PART_BYTES)
        ),
        "GET, a range of 1 MiB": measure(READS, read),
        "HEAD": measure(READS, lambda number: store.head(keys[number])),
        "LIST by prefix, 1 found": measure(READS, find),
        f"LIST, all {SMALL_FILES}": measure(LISTS, list_all),
    }
