"""Sends hostile JSON-RPC to `dgx-music mcp`, which runs in a process of its own:

    python -m tests.fuzz.mcp_requests --count 1000 --seed 1

Every request is answered, no answer shows a path or a traceback, standard output has nothing but JSON, and afterwards
the server still serves.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from random import Random
from typing import Any

from tests.fuzz import hostile_values as hostile
from tests.fuzz.fuzzed_calls import LEAK
from tests.fuzz.fuzzing_command import run_command
from tests.support.command_line import DGX_MUSIC, environment
from tests.support.service_processes import ServiceProcesses

ANSWER_SECONDS = 60.0
CLIENT = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "fuzz", "version": "1"}}
TOOLS: dict[str, dict[str, Any]] = {
    "generate": {"prompt": "house", "duration_seconds": 0.1, "model": "sketch"},
    "extend": {"id": "", "seconds": 1.0},
    "repaint": {"id": "", "start_seconds": 0.0, "end_seconds": 0.05},
    "listen": {"id": "", "seconds": 1.0},
    "list": {"limit": 3},
    "show": {"id": ""},
    "cancel": {"id": ""},
    "models": {},
}
METHODS = ("tools/list", "resources/list", "resources/read", "prompts/list", "ping", "tools/call", "initialize", "x")
GARBAGE = (
    b"",
    b"{",
    b"null",
    b"[]",
    b"1",
    b'"x"',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"jsonrpc": "2.0"}',
    b'{"jsonrpc": "1.0", "id": 7, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": null, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": 1, "result": {}}',
    b"x" * (1 << 20),
)


class McpFuzzer:
    """A client of one server. Requests are sent one by one, since each answer has to come."""

    def __init__(self, process: asyncio.subprocess.Process, seed: int) -> None:
        self._process, self._seed = process, seed
        self.kinds: Counter[str] = Counter()
        self.problems: list[str] = []
        self._id = ""

    async def start(self) -> None:
        await self.ask(1, "initialize", CLIENT)
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        arguments = {"name": "generate", "arguments": TOOLS["generate"]}
        answer = await self.ask(2, "tools/call", arguments)
        self._id = answer["result"]["structuredContent"]["id"]

    def _write(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def ask(self, number: int, method: str, params: object) -> dict[str, Any]:
        """Sends a request; returns the answer to it. Raises AssertionError if there is none."""
        self._write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return await self._answer(number)

    async def _answer(self, number: int) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := await asyncio.wait_for(self._process.stdout.readline(), ANSWER_SECONDS):
            message: dict[str, Any] = json.loads(line)
            if message.get("id") == number:
                return message
        raise AssertionError("the server ended")

    async def send(self, number: int) -> None:
        """Sends one request, drawn from its number, and notes what is wrong with the answer."""
        rng = Random(f"{self._seed}:{number}")
        if rng.random() < 0.1:
            assert self._process.stdin is not None
            self._process.stdin.write(rng.choice(GARBAGE) + b"\n")
            method, params = "ping", {}
        elif rng.random() < 0.15:
            method, params = rng.choice(METHODS), {hostile.string(rng)[:100]: hostile.struct_value(rng)}
            if method == "resources/read":
                params = {"uri": f"dgx-music://generations/{rng.choice((self._id, hostile.string(rng)[:2000]))}"}
        else:
            method, params = "tools/call", self._call(rng)
        described = f"request {number} of seed {self._seed}: {method} {str(params)[:600]}"
        try:
            answer = await self.ask(number + 100, method, params)
        except TimeoutError:
            self.problems.append(f"{described}\n  no answer")
            return
        self.kinds["error" if "error" in answer else "tool error" if answer["result"].get("isError") else "result"] += 1
        text = json.dumps(answer.get("error") or (answer["result"].get("isError") and answer["result"]) or "")
        if LEAK.search(re.sub(r"'[^']*'|\[type=.*?\]|pydantic\.dev", "", text)):
            self.problems.append(f"{described}\n  shows what is inside: {text[:1000]}")

    def _call(self, rng: Random) -> object:
        name = rng.choice(tuple(TOOLS))
        arguments: dict[str, Any] = {**TOOLS[name]}
        if "id" in arguments:
            arguments["id"] = self._id
        names = (
            *arguments,
            "seed",
            "format",
            "continue_from",
            "negative_prompt",
            "melody",
            "loop_bars",
            "search",
            "state",
        )
        for _ in range(rng.choice((0, 1, 1, 2))):
            value = rng.choice((*hostile.INT64, 2**64, 10**30, *hostile.FLOATS)) if rng.random() < 0.5 else None
            arguments[rng.choice(names)] = hostile.struct_value(rng) if value is None else value
        return {"name": name if rng.random() < 0.95 else hostile.string(rng)[:300], "arguments": arguments}


async def fuzz_mcp(services: ServiceProcesses, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Sends so many requests; returns how many answers were of which kind, and the problems."""
    process = await asyncio.create_subprocess_exec(
        *(DGX_MUSIC, "--data-dir", services.data_dir, "mcp"),
        env=environment(DGX_MUSIC_GATEWAY_ADDRESS=services.address("gateway")),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        limit=1 << 26,
    )
    assert process.stderr is not None
    log = asyncio.ensure_future(process.stderr.read())
    fuzzer = McpFuzzer(process, seed)
    try:
        await fuzzer.start()
        for number in range(count):
            await fuzzer.send(number)
        await fuzzer.ask(count + 100, "ping", {})
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        written = (await log).decode(errors="replace")
    fuzzer.problems += [
        f"log: {written[max(0, at - 200) : at + 2000]}" for at in [written.find("Traceback")] if at >= 0
    ]
    return fuzzer.kinds, fuzzer.problems


if __name__ == "__main__":
    sys.exit(run_command(fuzz_mcp, __doc__.partition("\n")[0], 1000))
