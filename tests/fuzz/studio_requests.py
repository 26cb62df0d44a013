"""Sends hostile JSON, query strings, ids, ranges and files to `dgx-music studio`, which runs in a process of its own:

    python -m tests.fuzz.studio_requests --count 2000 --seed 1

No answer is 500, none shows a path or a traceback, every error has its object, and afterwards the server is healthy and
its log without an unexpected error.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from random import Random
from urllib.parse import quote

import httpx2
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from gateway.studio.method_calls import QUICK, READS_AUDIO, describe_method
from tests.fuzz import hostile_values as hostile
from tests.fuzz.fuzzed_calls import LEAK, MAX_MESSAGE_CHARACTERS
from tests.fuzz.fuzzing_command import run_command
from tests.fuzz.http_requests import BUSY, GARBAGE
from tests.fuzz.known_objects import KnownObjects
from tests.fuzz.message_generator import MessageGenerator
from tests.fuzz.web_fuzzing import send_all
from tests.support.service_processes import ServiceProcesses

METHODS = (*QUICK, *READS_AUDIO)
OF_A_TAKE = ("file", "live", "events", "commands", "midi", "stems")
QUERIES = (
    "",
    "start_frame=0&level=LIVE",
    "start_frame=99999999999999999",
    "start_frame=%D9%A0&level=live",
    "format=mp3&download=1",
    "format=flac-16",
    "format=../wav",
    "level=FINAL&level=LIVE",
    "%00=%ff&;&=&&",
)
RANGES = ("bytes=0-", "bytes=-1", "bytes=5-1", "bytes=" + "9" * 30 + "-", "bytes=0-0,2-3", "bytes=\u0661-", "x" * 3000)
CALL_SECONDS = 60.0


class StudioFuzzer:
    def __init__(self, client: httpx2.AsyncClient, seed: int) -> None:
        self._client, self._seed = client, seed
        self._known = KnownObjects()
        self.statuses: Counter[int] = Counter()
        self.problems: list[str] = []

    async def send(self, number: int) -> None:
        """Sends one request, drawn from its number, and notes what is wrong with the answer."""
        rng = Random(f"{self._seed}:{number}")
        kind = rng.random()
        method = ""
        if kind < 0.6:
            method = rng.choice(METHODS)
            request = self._call(rng, method)
        elif kind < 0.9:
            request = self._get(rng)
        else:
            request = self._post(rng)
        described = f"request {number} of seed {self._seed}: {request.method} {request.url!s:.200}"
        try:
            response = await asyncio.wait_for(self._client.send(request), CALL_SECONDS)
        except httpx2.RemoteProtocolError:
            return  # Cut off: a take that was cancelled or deleted while it was heard.
        except (TimeoutError, httpx2.HTTPError) as error:
            self.problems.append(f"{described}\n  {error!r}")
            return
        self.statuses[response.status_code] += 1
        self.problems += [f"{described}\n  {problem}" for problem in self._judge(response)]
        if method and response.status_code == 200:
            answer = GetMessageClass(describe_method(method).output_type)()
            self._known.learn(json_format.Parse(response.content, answer))

    def _judge(self, response: httpx2.Response) -> list[str]:
        status = response.status_code
        if status < 400:
            return []
        problems, message = [], ""
        try:
            error = response.json()["error"]
            message = error["message"]
            assert set(error) == {"code", "message", "reason", "field", "metadata", "retry_after_seconds"}
        except (ValueError, KeyError, TypeError, AssertionError):
            # Of a file's range, a header says all; what Starlette says of the page's own files is text.
            if response.url.path.startswith("/api") and (status != 416 or response.content):
                problems.append(f"{status} without an error object: {response.text[:300]!r}")
        if status >= 500 and status not in BUSY:
            problems.append(f"{status}: {message[:400]}")
        if LEAK.search(re.sub(r"'[^']*'|\"[^\"]*\"|^\w+ /\S*", "", message)):
            problems.append(f"shows what is inside: {message[:400]}")
        if len(message) > MAX_MESSAGE_CHARACTERS:
            problems.append(f"a message of {len(message)} characters")
        return problems

    def _call(self, rng: Random, method: str) -> httpx2.Request:
        message = MessageGenerator(rng, self._known).request(describe_method(method).input_type)
        if method in ("CreateGeneration", "BatchCreateGenerations"):
            _shorten(message)
        try:
            content = json_format.MessageToJson(message, indent=None).encode()
        except (json_format.SerializeToJsonError, ValueError):  # Such as a time that no calendar has.
            content = rng.choice(GARBAGE)
        match rng.randrange(20):
            case 0:
                content = content[: rng.randrange(len(content) + 1)]
            case 1:
                content = rng.choice(GARBAGE)
            case 2:
                content = re.sub(
                    rb'"[^"]*"(?=[,}])', lambda _: rng.choice((b"null", b"[]", b"1e999", b'"\\ud800"')), content
                )
        return self._client.build_request(
            "POST", f"/api/{method}", content=content, headers={"content-type": "application/json"}
        )

    def _id(self, rng: Random) -> str:
        known = self._known.draw(rng, "id", "")
        return known if known and rng.random() < 0.7 else quote(hostile.string(rng)[:1000], safe="")

    def _get(self, rng: Random) -> httpx2.Request:
        headers: list[tuple[bytes, bytes]] = []
        if rng.random() < 0.3:
            headers.append((b"range", rng.choice(RANGES).encode()))
        if rng.random() < 0.1:
            headers.append((b"if-none-match", rng.choice((b"*", b'"', b'W/"x"', b"\xff"))))
        if rng.random() < 0.1:
            headers.append((b"cookie", rng.choice((b"dgx-music-token=x", b"=;=", b"\xff=\xfe", b"a" * 9000))))
        if rng.random() < 0.2:
            path = rng.choice(("/api/events", "/api/session", "/static", "/", "/api/studio", "/api"))
            pairs = [f"id={self._id(rng)}" for _ in range(rng.choice((0, 1, 2, 70)))]
            query = "&".join([*pairs, rng.choice(("", "format=reaper", "format=x", "midi=1"))])
        else:
            path, query = f"/api/generations/{self._id(rng)}/{rng.choice(OF_A_TAKE)}", rng.choice(QUERIES)
        return self._client.build_request("GET", f"{path}?{query}", headers=headers)

    def _post(self, rng: Random) -> httpx2.Request:
        path = rng.choice(("/api/clips", "/api/sign-in", "/api/sign-out", "/api/none"))
        kind = rng.choice(("application/json", "audio/wav", "application/octet-stream", "text/plain", ""))
        content = rng.choice((*GARBAGE, b'{"token": "dgxm_x"}', b'{"token": {}}', rng.randbytes(5000), bytes(1 << 21)))
        return self._client.build_request("POST", path, content=content, headers={"content-type": kind})


def _shorten(message: object) -> None:
    """Keeps what is generated short: here it is not the music that matters."""
    for request in getattr(message, "requests", None) or [message]:
        if request.duration_seconds > 2:  # type: ignore[attr-defined]
            request.duration_seconds = 0.2  # type: ignore[attr-defined]


async def fuzz_studio(services: ServiceProcesses, count: int, seed: int) -> tuple[Counter[int], list[str]]:
    """Sends so many requests; returns how many answers had which status, and the problems."""
    process, url = await services.start_studio()
    async with httpx2.AsyncClient(base_url=url, timeout=CALL_SECONDS) as client:
        fuzzer = StudioFuzzer(client, seed)
        await send_all(fuzzer, count, client, process)
    return fuzzer.statuses, fuzzer.problems


if __name__ == "__main__":
    sys.exit(run_command(fuzz_studio, __doc__.partition("\n")[0], 2000))
