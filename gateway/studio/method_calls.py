"""`POST /api/{Method}`: the unary methods of MusicService in protobuf's JSON."""

from __future__ import annotations

import re

from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dgx_music.errors import InvalidArgument, NotFound
from dgx_music.gateway.v1 import gateway_pb2
from gateway.studio.gateway_calls import CALL_SECONDS, WORK_SECONDS, call
from gateway.studio.studio_errors import ERRORS
from gateway.web.connected_callers import run_while_connected
from gateway.web.gateway_clients import GatewayClients
from gateway.web.request_body import read_body, refuse_other_types

QUICK = (
    "CreateGeneration",
    "BatchCreateGenerations",
    "GetGeneration",
    "GetLineage",
    "ListGenerations",
    "RateGeneration",
    "CreateComparison",
    "ListComparisons",
    "CancelGeneration",
    "RetryGeneration",
    "DeleteGeneration",
    "DeleteFile",
    "ListFiles",
    "GetLibraryStatistics",
    "ListModels",
    "GetEngineStatus",
    "ListPrompts",
    "GetStatistics",
)
"""What is carried out to its end, also if the page is closed meanwhile."""
READS_AUDIO = ("GetWaveform", "GetBeatGrid", "GetLoudnessCurve", "GetMidi", "Render", "EditTags", "GetDownloadUrl")
"""What takes longer with more audio, and is ended if the page is closed meanwhile."""

MAX_PROBLEM_CHARACTERS = 300
"""Of protobuf's own words."""

_SERVICE = gateway_pb2.DESCRIPTOR.services_by_name["MusicService"]
_PROBLEM = re.compile(r"(?P<outer>(?:Failed to parse \w+ field: )*)(?P<problem>.*)", re.DOTALL)
_OUTER_FIELD = re.compile(r"Failed to parse (\w+) field: ")
_PATH = re.compile(r' at "?\w+\.([\w.\[\]]*\w\]?)"?\.')


class MethodCalls:
    """Calls a method with the request in the body, and answers with its response: camelCase names, and also the fields
    that have their default. The answer is never kept by a cache."""

    def __init__(self, clients: GatewayClients) -> None:
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if (refusal := refuse_other_types(request, ERRORS)) is not None:
            return await refusal(scope, receive, send)
        name = request.path_params["method"]
        if name not in QUICK and name not in READS_AUDIO:
            raise NotFound("method", name, "docs/studio.md lists those that the Studio passes on")
        async with self._clients.client_for(request) as client:  # First: of a caller without a token no body is read.
            content = await read_body(request, ERRORS)
            if isinstance(content, Response):
                return await content(scope, receive, send)
            message = parse_request(name, content)
            method = getattr(client.music, name)

            async def answer(timeout_seconds: float) -> None:
                await to_response(await call(method, message, timeout_seconds))(scope, receive, send)

            if name in READS_AUDIO:
                return await run_while_connected(answer(WORK_SECONDS), receive)
            return await answer(CALL_SECONDS)


def parse_request(method: str, content: bytes) -> Message:
    """Returns the request of the method. Raises InvalidArgument, which names the field if that is known."""
    message: Message = GetMessageClass(describe_method(method).input_type)()
    try:
        json_format.Parse(content.decode() or "{}", message)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        field, problem = _explain(str(error))
        raise InvalidArgument(field, f"is not as a {message.DESCRIPTOR.name} in JSON has it: {problem}") from error
    return message


def _explain(text: str) -> tuple[str, str]:
    """Returns the path of the field at fault, as far as protobuf's error names it, and what is wrong with it."""
    match = _PROBLEM.fullmatch(text)
    assert match is not None  # It matches any text.
    path = _PATH.search(match["problem"])
    field = path[1] if path else ".".join(_OUTER_FIELD.findall(match["outer"]))
    return _snake_case(field) or "body", match["problem"].partition("\n")[0][:MAX_PROBLEM_CHARACTERS]


def to_json(message: Message) -> str:
    """Returns protobuf's JSON of the message, with the fields that have their default."""
    return json_format.MessageToJson(
        message, always_print_fields_with_no_presence=True, indent=None, ensure_ascii=False
    )


def to_response(message: Message) -> Response:
    """Returns the response that carries the message."""
    return Response(to_json(message), media_type="application/json")


def _snake_case(path: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: f"_{match[1].lower()}", path)


def describe_method(name: str) -> MethodDescriptor:
    """Returns the descriptor of a method of MusicService."""
    return _SERVICE.methods_by_name[name]
