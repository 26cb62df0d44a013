"""`GET /api/generations/{id}/commands`: what repeats a take exactly, for copying."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dgx_music.errors import NotFound
from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.studio.finished_file import find_generation
from gateway.studio.repeating.buf_line import buf_line
from gateway.studio.repeating.python_program import python_program
from gateway.studio.repeating.repeat_request import GatewayAccess, repeat_request
from gateway.studio.repeating.shell_line import Inexpressible, shell_line
from gateway.web.gateway_clients import GatewayClients


class RepeatCommands:
    """Words the request behind a take in three ways. `command_line` is empty where the command line has no option for
    something in it, and `command_line_problem` then says for what."""

    def __init__(self, clients: GatewayClients, access: GatewayAccess) -> None:
        self._clients, self._access = clients, access

    async def get(self, request: Request) -> Response:
        """Answers with the three texts."""
        async with self._clients.client_for(request) as client:
            generation = await find_generation(client, request.path_params["id"])
            wanted = repeat_request(generation)
            source = None
            if wanted.HasField("edit"):
                try:
                    source = await find_generation(client, wanted.edit.source_id)
                except NotFound:
                    source = Generation(id=wanted.edit.source_id)  # A clip, or it was deleted.
        line, problem = "", ""
        try:
            line = shell_line(wanted, self._access, source)
        except Inexpressible as error:
            problem = f"the command line has no option for {error}; the other two repeat it"
        return JSONResponse(
            {
                "command_line": line,
                "command_line_problem": problem,
                "buf_curl": buf_line(wanted, self._access),
                "python": python_program(wanted, self._access),
                "model_version": generation.model_version,
            }
        )
