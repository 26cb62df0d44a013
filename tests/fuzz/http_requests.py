"""Sends hostile JSON, query strings, headers and paths to `dgx-music http`, which runs in a process of its own:

    python -m tests.fuzz.http_requests --count 2000 --seed 1

No answer is 500, none shows a path or a traceback, and afterwards the server is healthy and its log without an
unexpected error.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from random import Random
from urllib.parse import quote

import httpx2

from tests.fuzz import hostile_values as hostile
from tests.fuzz.fuzzed_calls import LEAK, MAX_MESSAGE_CHARACTERS
from tests.fuzz.fuzzing_command import run_command
from tests.fuzz.web_fuzzing import send_all
from tests.support.service_processes import ServiceProcesses

PATHS = (
    "/v1/audio/speech",
    "/v1/audio/generate",
    "/v1/sound-generation",
    "/v1/music",
    "/v1/music/stream",
    "/v1/models",
    "/v1/models/sketch",
    "/health",
)
FIELDS = {
    "text": (
        "input",
        "text",
        "prompt",
        "instructions",
        "caption",
        "lyrics",
        "lyrics_text",
        "negative_prompt",
        "keyscale",
    ),
    "number": (
        "duration_seconds",
        "audio_length",
        "music_length_ms",
        "temperature",
        "top_p",
        "guidance_scale",
        "speed",
    ),
    "integer": ("seed", "top_k", "steps", "num_inference_steps", "loop_bars", "priority", "bpm"),
    "id": ("continue_from", "melody", "style", "model", "model_id"),
    "other": ("loudness", "adapters", "stream", "stream_format", "response_format", "loop", "composition_plan"),
}
INTEGERS = (*hostile.INT64, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400)
GARBAGE = (b"", b"null", b"[]", b"1", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5000, b"\xef\xbb\xbf{}")
OUTPUT_FORMATS = (
    "mp3_44100_128",
    "pcm_24000",
    "wav",
    "auto",
    "mp3_44100_99999999999999999999",
    "mp3_99999999999_128",
    "opus_48000_0",
    "pcm_0",
    "pcm_" + "9" * 5000,
    "mp3_\u0664\u0664100_128",
    "x" * 3000,
    "mp3__",
    "\x00",
    "../wav",
)
CALL_SECONDS = 60.0
MAX_LINE_CHARACTERS = 8000
"""Of the log."""
BUSY = frozenset({429, 503, 504})
"""Not from one caller who sends one request at a time."""


class HttpFuzzer:
    def __init__(self, client: httpx2.AsyncClient, seed: int) -> None:
        self._client, self._seed = client, seed
        self.statuses: Counter[int] = Counter()
        self.problems: list[str] = []

    async def send(self, number: int) -> None:
        """Sends one request, drawn from its number, and notes what is wrong with the answer."""
        rng = Random(f"{self._seed}:{number}")
        path = rng.choice(PATHS[:5] if rng.random() < 0.8 else PATHS)
        if rng.random() < 0.1:
            path = f"/v1/models/{quote(hostile.string(rng)[:1000], safe='')}" if rng.random() < 0.5 else path + "/x"
        method = rng.choice(("GET", "POST", "PUT", "OPTIONS")) if rng.random() < 0.1 else "POST"
        if "models" in path or path == "/health":
            method = "GET" if rng.random() < 0.8 else method
        query = f"?output_format={quote(rng.choice(OUTPUT_FORMATS))}" if rng.random() < 0.5 else ""
        content, headers = self._body(rng), self._headers(rng)
        encoded = [
            (name.encode(), value.encode() if isinstance(value, str) else value) for name, value in headers.items()
        ]
        request = self._client.build_request(method, path + query, content=content, headers=encoded)
        described = (
            f"request {number} of seed {self._seed}: {method} {path[:200]}{query[:100]} {headers} {content[:600]!r}"
        )
        try:
            response = await asyncio.wait_for(self._client.send(request), CALL_SECONDS)
        except (TimeoutError, httpx2.HTTPError) as error:
            self.problems.append(f"{described}\n  {error!r}")
            return
        self.statuses[response.status_code] += 1
        self.problems += [f"{described}\n  {problem}" for problem in self._judge(response)]

    def _judge(self, response: httpx2.Response) -> list[str]:
        status = response.status_code
        if status < 400:
            return []
        problems = []
        try:
            message = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = response.text
            if status != 503:
                problems.append(f"{status} without an error object: {response.text[:300]!r}")
        if status >= 500 and status not in BUSY:
            problems.append(f"{status}: {message[:400]}")
        if LEAK.search(re.sub(r"'[^']*'|\"[^\"]*\"|^\w+ /\S*", "", message)):
            problems.append(f"shows what is inside: {message[:400]}")
        if len(message) > MAX_MESSAGE_CHARACTERS:
            problems.append(f"a message of {len(message)} characters")
        return problems

    def _headers(self, rng: Random) -> dict[str, str | bytes]:
        headers: dict[str, str | bytes] = {"content-type": "application/json"}
        if rng.random() < 0.1:
            headers["content-type"] = rng.choice(("text/plain", "application/json; charset=utf-16", "", "a" * 500))
        ascii_text = hostile.string(rng)[:300].encode("ascii", "ignore").decode()
        text = "".join(character for character in ascii_text if character.isprintable()).strip()
        if rng.random() < 0.2:
            headers[rng.choice(("dgx-music-client", "user-agent", "x-request-id", "traceparent", "xi-api-key"))] = text
        if rng.random() < 0.1:
            headers["authorization"] = rng.choice(
                (f"Bearer x{text}", "Bearer dgxm_x", "Basic eDp5", "Bearer dgxm_" + text)
            )
        return headers

    def _body(self, rng: Random) -> bytes:
        body: dict[str, object] = {"input": "house", "text": "house", "prompt": "house", "model": "sketch"}
        body |= {"duration_seconds": 0.1, "response_format": rng.choice(("wav", "pcm", "mp3", "flac"))}
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
            kind = rng.choice(tuple(FIELDS))
            body[rng.choice(FIELDS[kind])] = self._value(rng, kind)
        encoded = json.dumps(body).encode()
        match rng.randrange(30):
            case 0:
                return encoded[: rng.randrange(len(encoded))]
            case 1:
                return rng.choice(
                    (b"", b"null", b"[]", b"1", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5000, b"\xef\xbb\xbf{}")
                )
            case 2:
                return encoded.replace(b'"house"', rng.choice((b'"\\ud800"', b'"\xff"', b'"\x00"', b'"\\u0000"')))
        return encoded

    def _value(self, rng: Random, kind: str) -> object:
        match kind:
            case "integer":
                return rng.choice(INTEGERS)
            case "number":
                return rng.choice((*hostile.FLOATS, *INTEGERS[:20]))
            case "text" | "id" if rng.random() < 0.9:
                return hostile.string(rng)
        return hostile.struct_value(rng)


async def fuzz_http(services: ServiceProcesses, count: int, seed: int) -> tuple[Counter[int], list[str]]:
    """Sends so many requests; returns how many answers had which status, and the problems."""
    process, url = await services.start_http()
    async with httpx2.AsyncClient(base_url=url, timeout=CALL_SECONDS) as client:
        fuzzer = HttpFuzzer(client, seed)
        log = await send_all(fuzzer, count, client, process)
    fuzzer.problems += [f"log: {line[:300]}" for line in log.splitlines() if len(line) > 8000]
    return fuzzer.statuses, fuzzer.problems


if __name__ == "__main__":
    sys.exit(run_command(fuzz_http, __doc__.partition("\n")[0], 2000))
