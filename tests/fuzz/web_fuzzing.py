"""What fuzzing a web server has in common: its senders, its health afterwards, and its log."""

from __future__ import annotations

import asyncio
from typing import Protocol

import httpx2

from tests.support.service_processes import ServiceProcess


class WebFuzzer(Protocol):
    """Sends hostile requests, and collects what is wrong with the answers."""

    problems: list[str]

    async def send(self, number: int) -> None:
        """Sends one request."""


async def send_all(fuzzer: WebFuzzer, count: int, client: httpx2.AsyncClient, process: ServiceProcess) -> str:
    """Sends so many requests, four at a time. What is wrong with the server afterwards joins the fuzzer's problems.
    Returns the log."""
    numbers = iter(range(count))

    async def send() -> None:
        for number in numbers:
            await fuzzer.send(number)

    await asyncio.gather(*(send() for _ in range(4)))
    if (await client.get("/health")).status_code != 200:
        fuzzer.problems.append("not healthy afterwards")
    log = process.log()
    fuzzer.problems += [
        f"log: {line[:3000]}" for line in log.splitlines() if "http_request_failed" in line or "Traceback" in line
    ]
    return log
