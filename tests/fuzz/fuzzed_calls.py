"""Calls methods with messages that were generated, and judges the answers."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from dgx_music.error_status import read_error_details, status_of
from dgx_music.errors import DOMAIN
from tests.fuzz.known_objects import KnownObjects
from tests.fuzz.message_generator import MessageGenerator
from tests.fuzz.wire_bytes import encode

DEADLINE_SECONDS = 60.0
"""Of a call that has no reason to wait. Long, since a busy machine is no fault of the server's."""
LISTEN_SECONDS = 1.0
"""Deadline of a stream, and of a call that waits for something to happen."""
SLACK_SECONDS = 60.0
"""A call that has not ended so long after its deadline hangs."""
MAX_RESPONSES = 8
"""So many responses of a stream are read before it is cancelled."""
MAX_MESSAGE_CHARACTERS = 2000
WAITING = frozenset({"ClaimGeneration", "WatchGeneration", "StreamAudio", "Generate", "Watch", "Download"})
"""Methods that may reach their deadline."""
NEVER = frozenset({"INTERNAL", "UNKNOWN", "UNIMPLEMENTED", "UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED"})
ENDED_WHILE_SENDING = "Internal error from Core"
"""What gRPC's client makes of a server that ends a call while it is still sending."""
EXPECTED = {"UNAUTHENTICATED": ("VerifyToken",)}
"""Code → the methods that answer with it all the same."""
LEAK = re.compile(
    r"Traceback|File \"|/tmp/|/home/|site-packages|object at 0x|[a-z]+_service[./]|sqlalchemy|sqlite3|psycopg|"
    r"\bpydantic\b|\bNoneType\b|<class '|errno",
    re.IGNORECASE,
)
"""What a message for a caller never contains: code, paths, and names of classes."""


@dataclass(frozen=True)
class FuzzedMethod:
    """A method, on the channel of the server that has it."""

    descriptor: MethodDescriptor
    channel: grpc.aio.Channel

    @property
    def path(self) -> str:
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def request(self) -> Descriptor:
        return self.descriptor.input_type

    @property
    def response_type(self) -> type[Message]:
        return GetMessageClass(self.descriptor.output_type)


def methods_of(service: ServiceDescriptor, channel: grpc.aio.Channel) -> list[FuzzedMethod]:
    return [FuzzedMethod(method, channel) for method in service.methods]


class FuzzedCall:
    """One call, drawn from a seed."""

    def __init__(self, method: FuzzedMethod, rng: Random, known: KnownObjects) -> None:
        self.method, self._known = method, known
        generator = MessageGenerator(rng, known)
        if method.descriptor.client_streaming:
            messages = generator.requests(method.request)
        else:
            messages = [generator.request(method.request)]
        self.messages = messages
        self._data = [encode(rng, message) for message in messages]
        self.code = ""

    def __str__(self) -> str:
        shown = "\n".join(
            f"{{{str(message)[:1500]}}} {data[:300]!r}" for message, data in zip(self.messages, self._data, strict=True)
        )
        return f"{self.method.path} {shown}"

    async def run(self) -> list[str]:
        """Makes the call; returns what is wrong with its answer."""
        name = self.method.descriptor.name
        waits = name in WAITING or self.method.descriptor.server_streaming
        deadline = LISTEN_SECONDS if waits else DEADLINE_SECONDS
        try:
            await asyncio.wait_for(self._call(deadline), deadline + SLACK_SECONDS)
        except TimeoutError:
            return ["it hangs past its deadline"]
        except grpc.aio.AioRpcError as error:
            if error.details() == ENDED_WHILE_SENDING and self.method.descriptor.client_streaming:
                self.code = "ENDED"
                return []
            self.code = error.code().name
            return list(self._judge(error, waits))
        self.code = "OK"
        return []

    async def _call(self, deadline: float) -> None:
        descriptor, channel = self.method.descriptor, self.method.channel
        parse: Any = self.method.response_type.FromString
        request: Any = self._requests() if descriptor.client_streaming else self._data[0]
        match descriptor.client_streaming, descriptor.server_streaming:
            case False, False:
                self._known.learn(await channel.unary_unary(self.method.path, None, parse)(request, timeout=deadline))
            case True, False:
                self._known.learn(await channel.stream_unary(self.method.path, None, parse)(request, timeout=deadline))
            case False, True:
                await self._read(channel.unary_stream(self.method.path, None, parse)(request, timeout=deadline))
            case True, True:
                await self._read(channel.stream_stream(self.method.path, None, parse)(request, timeout=deadline))

    async def _read(self, call: Any) -> None:
        responses = 0
        try:
            async for response in call:
                self._known.learn(response)
                responses += 1
                if responses == MAX_RESPONSES:
                    return
        finally:
            call.cancel()

    async def _requests(self) -> AsyncIterator[bytes]:
        for data in self._data:
            yield data

    def _judge(self, error: grpc.aio.AioRpcError, waits: bool) -> list[str]:
        code, name = error.code().name, self.method.descriptor.name
        details, status = read_error_details(error), status_of(error)
        text = f"{error.details()} {details.metadata} {details.violations}"
        found = []
        if (code in NEVER and name not in EXPECTED.get(code, ())) or (code == "DEADLINE_EXCEEDED" and not waits):
            found.append("no caller may get this")
        if LEAK.search(self._without_own_text(text)):
            found.append("its text shows what is inside the server")
        if len(error.details() or "") > MAX_MESSAGE_CHARACTERS:
            found.append(f"its text has {len(error.details() or '')} characters")
        if not (error.details() or "").isprintable():
            found.append("its text has control characters")
        if status is None:
            if code not in ("DEADLINE_EXCEEDED", "CANCELLED") and not self._is_too_large():
                found.append("it has no google.rpc.Status")
        elif not details.reason or DOMAIN not in str(status):
            found.append("it has no ErrorInfo")
        if code == "INVALID_ARGUMENT" and not details.violations and details.reason != "MALFORMED_REQUEST":
            found.append("it names no field")
        found += [
            f"it names the field {field!r}, which there is not"
            for field in details.violations
            if not self._has_field(field)
        ]
        return [f"{problem}: {code}: {text[:600]}" for problem in found]

    def _without_own_text(self, text: str) -> str:
        """Without what the request itself said, which a message may quote."""
        return re.sub(r"'[^']*'|\"[^\"]*\"", "", text)

    def _is_too_large(self) -> bool:
        return any(len(data) > 4 << 20 for data in self._data)

    def _has_field(self, path: str) -> bool:
        descriptor: Descriptor | None = self.method.request
        for name in re.sub(r"\[\d+\]", "", path).split("."):
            if descriptor is None:
                return False
            if descriptor.full_name == "google.protobuf.Struct":
                return True
            if name in descriptor.oneofs_by_name:
                return True
            if name not in descriptor.fields_by_name:
                return False
            descriptor = descriptor.fields_by_name[name].message_type
        return True


class Tally:
    """How many calls of each method ended with which code, and what they cost."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.memory: dict[str, list[int]] = {}
        """Service → its bytes of memory before and after."""

    def add(self, call: FuzzedCall) -> None:
        self.counts[call.method.path, call.code] += 1

    def __str__(self) -> str:
        paths = sorted({path for path, _ in self.counts})
        lines = []
        for path in paths:
            codes = {code: number for (one, code), number in sorted(self.counts.items()) if one == path}
            lines.append(
                f"{path.removeprefix('/'):65} " + " ".join(f"{code}:{number}" for code, number in codes.items())
            )
        for name, sizes in self.memory.items():
            lines.append(f"{name:65} " + " → ".join(f"{size >> 20}" for size in sizes) + " MiB")
        return "\n".join(lines)
