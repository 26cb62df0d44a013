"""A Studio in the process of the test or in one of its own, and a client that asks what its page would ask."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from gateway.studio.config import StudioSettings
from gateway.studio.server import serve_studio
from tests.support.command_line import DGX_MUSIC, environment
from tests.support.processes import process

TIMEOUT_SECONDS = 60.0


class Studio:
    """A Studio that is served at `http.base_url`."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    @property
    def port(self) -> int:
        port = self.http.base_url.port
        assert port is not None
        return port

    async def call(self, method: str, **request: object) -> Any:
        """Returns the answer to POST /api/METHOD."""
        response = await self.http.post(f"/api/{method}", json=request)
        assert response.status_code == 200, response.text
        return response.json()

    async def create(self, prompt: str, duration: float = 0.5, **request: object) -> str:
        """Returns the id of a new generation."""
        made = await self.call("CreateGeneration", prompt=prompt, durationSeconds=duration, **request)
        id: str = made["generation"]["id"]
        return id

    async def wait(self, id: str) -> dict[str, Any]:
        """Returns the generation once it has ended."""
        *_, (name, done) = await events(self.http, id)
        assert (name, done) == ("done", {})
        generation: dict[str, Any] = (await self.call("GetGeneration", id=id))["generation"]
        return generation

    async def generate(self, prompt: str, duration: float = 0.5, **request: object) -> str:
        """Returns the id of a new generation that is completed."""
        id = await self.create(prompt, duration, **request)
        assert (await self.wait(id))["state"] == "GENERATION_STATE_COMPLETED"
        return id


async def events(http: httpx2.AsyncClient, *ids: str) -> list[tuple[str, Any]]:
    """Returns the names and contents of the events of generations, until there are no more."""
    return [event async for event in follow(http, *ids)]


async def follow(http: httpx2.AsyncClient, *ids: str) -> AsyncIterator[tuple[str, Any]]:
    """Yields the name and the content of each event, as a browser's EventSource gives them to the page."""

    async with http.stream("GET", "/api/events", params={"id": ids}) as response:
        assert response.status_code == 200, await response.aread()
        name, data = "message", ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data = line.removeprefix("data: ")
            elif not line and data:
                yield name, json.loads(data)
                name, data = "message", ""


@asynccontextmanager
async def studio(address: str, *, client_trusts: object = None, **settings: object) -> AsyncIterator[Studio]:
    """Serves a Studio for the gateway while the block runs."""
    configured = StudioSettings.model_validate({"studio_listen": "127.0.0.1:0", "grace_seconds": 1, **settings})
    verify: ssl.SSLContext | bool = True
    if client_trusts is not None:
        verify = ssl.create_default_context(cafile=str(client_trusts))
    async with (
        serve_studio(address, configured) as url,
        httpx2.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, verify=verify) as client,
    ):
        yield Studio(client)


@asynccontextmanager
async def studio_process(data_dir: Path, *arguments: str, **settings: str) -> AsyncIterator[Studio]:
    """Runs `dgx-music studio`, with the services in it unless `settings` name a gateway; ends it by SIGTERM, upon which
    its status must be 0."""
    command = [DGX_MUSIC, "--data-dir", data_dir, "studio", "--no-open", "--listen", "127.0.0.1:0", *arguments]
    async with process(*command, env=environment(**settings), stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        seen = ""
        while not (url := re.search(r"the Studio is at (\S+);", seen)):
            line = await asyncio.wait_for(running.stderr.readline(), TIMEOUT_SECONDS)
            assert line, seen
            seen += line.decode()
        drain = asyncio.create_task(running.stderr.read())  # A full pipe would block the server.
        async with httpx2.AsyncClient(base_url=url[1], timeout=TIMEOUT_SECONDS) as client:
            yield Studio(client)
        running.terminate()
        await asyncio.wait_for(running.wait(), TIMEOUT_SECONDS)
        assert running.returncode == 0, seen + (await drain).decode()
