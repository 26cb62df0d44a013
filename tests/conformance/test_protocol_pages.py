"""docs/http.md, docs/studio.md and docs/mcp.md name all paths, fields and tools that there are, and no others."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, cast

from starlette.routing import Route

from dgx_music.client.async_client import AsyncClient
from gateway.http.application import MUSIC_PATHS, build_application
from gateway.http.music_request import RequestBody
from gateway.mcp.server import build_server
from gateway.studio.method_calls import QUICK, READS_AUDIO
from gateway.studio.repeating.repeat_request import GatewayAccess
from gateway.studio.studio_application import build_application as build_studio
from gateway.web.gateway_clients import GatewayClients

DOCS = Path(__file__).parents[2] / "docs"
COMMON_FIELDS = set(RequestBody.model_fields) - {"duration_seconds"}


def test_page_has_every_path() -> None:
    routes = build_application(GatewayClients("127.0.0.1:1", True), cast(Any, AnyHealth()), hosts=None).routes
    served = {route.path.replace("{name}", "NAME") for route in routes if isinstance(route, Route)}
    table = re.findall(r"^\| (`(?:POST|GET) .*?) \|", (DOCS / "http.md").read_text(), re.MULTILINE)
    named = {path for cell in table for path in re.findall(r"`(?:POST |GET )?(/[^`]*)`", cell)}
    assert named == served


def test_studio_page_has_every_path_and_method() -> None:
    access = GatewayAccess("127.0.0.1:1")
    clients = GatewayClients("127.0.0.1:1", True)
    application = build_studio(
        clients, cast(Any, AnyHealth()), access=access, requires_token=True, stopping=asyncio.Event(), hosts=None
    )
    served = {route.path for route in application.routes if isinstance(route, Route)}
    text = (DOCS / "studio.md").read_text()
    named = set(re.findall(r"^\| `(?:POST|GET) (/[^`?]*)", text, re.MULTILINE))
    assert {path.replace("/ID", "/{id}").replace("METHOD", "{method}") for path in named} == served
    [methods] = re.findall(r"^Methods: (.*?)\.$", text, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`(\w+)`", methods) == [*QUICK, *READS_AUDIO]


class AnyHealth:
    """Stands for an endpoint that is not called."""

    async def get(self, request: object) -> None: ...


def test_page_names_the_fields_of_every_body() -> None:
    text = (DOCS / "http.md").read_text()
    named = set(re.findall(r"`(?:\?|\"|)([a-z_]+)=?\"?(?::[^`]*)?`", text))
    for body in MUSIC_PATHS.values():
        assert set(body.model_fields) - {"composition_plan", "lyrics_text"} <= named
    assert named >= COMMON_FIELDS


async def test_page_has_every_tool_with_its_arguments() -> None:
    server = build_server(AsyncClient("127.0.0.1:1"), str)
    rows = re.findall(r"^\| `([a-z]+)` \| (.*?) \|", (DOCS / "mcp.md").read_text(), re.MULTILINE)
    documented = {tool: set(re.findall(r"`([a-z_]+)`", arguments)) for tool, arguments in rows}
    tools = await server.list_tools()
    assert documented == {tool.name: set(tool.input_schema["properties"]) for tool in tools}


def test_configurations_are_json() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (DOCS / "mcp.md").read_text(), re.DOTALL)
    for block in blocks:
        [servers] = json.loads(block).values()
        assert servers["dgx-music"]["args"] == ["mcp"]
    assert len(blocks) == 3
