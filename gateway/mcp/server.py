"""Builds the MCP server, and runs it on standard input and output."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.metadata import version

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp_types import ToolAnnotations

from dgx_music.client.async_client import AsyncClient
from dgx_music.errors import NotFound, ServiceError
from gateway.mcp.tool_results import GenerationResult, Locate
from gateway.mcp.tools import MusicTools

INSTRUCTIONS = (
    "Generates instrumental music from a description, on the user's own machine. `generate` waits for the result; tell "
    "the user its file, and the id, by which it can be listened to and continued. All of it is marked as AI-generated."
)
READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)
CREATES = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
CANCELS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)
GENERATION_URI = "dgx-music://generations/{id}"
READ_BYTES = 1 << 16


def build_server(client: AsyncClient, locate: Locate, on_end: Callable[[], None] = lambda: None) -> MCPServer:
    """Returns a server whose tools call the gateway by this client. `on_end` is called when it stops to serve."""

    @asynccontextmanager
    async def lifespan(server: MCPServer) -> AsyncIterator[None]:
        try:
            yield
        finally:
            on_end()

    server = MCPServer(
        "dgx-music",
        title="DGX Music",
        version=version("dgx-music"),
        instructions=INSTRUCTIONS,
        log_level="WARNING",
        lifespan=lifespan,
    )
    tools = MusicTools(client, locate)
    for tool, title, hints in (
        (tools.generate, "Generate music", CREATES),
        (tools.extend, "Make music longer", CREATES),
        (tools.repaint, "Replace a part of music", CREATES),
        (tools.listen, "Listen to music", READ_ONLY),
        (tools.list, "List music", READ_ONLY),
        (tools.show, "Show a piece of music", READ_ONLY),
        (tools.cancel, "Cancel a generation", CANCELS),
        (tools.models, "List models", READ_ONLY),
    ):
        server.add_tool(tool, title=title, annotations=hints)

    @server.resource(GENERATION_URI, title="A piece of music", mime_type="application/json")
    async def generation(id: str) -> str:
        """What is known about a generation: its state, file, loudness, tempo, key and seed."""
        try:
            return GenerationResult.of(await client.get(id), locate).model_dump_json(indent=2)
        except NotFound as error:
            raise ResourceNotFoundError(error.message) from error
        except ServiceError as error:
            raise ResourceError(error.message) from error

    return server


async def run_on_standard_streams(client: AsyncClient, locate: Locate) -> None:
    """Serves until standard input ends, or until it is cancelled: calls that run are then cancelled, and so is their
    music. Raises OSError if standard output can't be written to."""
    with _interruptible_input() as end_input:
        # Else a thread would wait for standard input although the other end no longer reads the answers.
        server = build_server(client, locate, end_input)
        serving = asyncio.ensure_future(server.run_stdio_async())
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            end_input()
            await serving
            raise
        except BaseExceptionGroup as group:
            raise _first(group) from group


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextmanager
def _interruptible_input() -> Iterator[Callable[[], None]]:
    """Puts a pipe in the place of standard input, which can be ended while a thread reads from it."""
    reading, writing = os.pipe()
    original = sys.stdin
    source = original.fileno()

    def end_input() -> None:
        nonlocal writing
        ended, writing = writing, -1
        if ended >= 0:
            os.close(ended)

    def pump() -> None:
        with suppress(OSError):
            while data := os.read(source, READ_BYTES):
                os.write(writing, data)
            end_input()

    threading.Thread(target=pump, daemon=True).start()
    sys.stdin = os.fdopen(reading, "r", encoding="utf-8")
    try:
        yield end_input
    finally:
        sys.stdin = original
