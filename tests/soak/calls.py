"""Calls of the gateway as a patient client makes them: each is repeated until it is answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from dgx_music.error_status import read_error_details, status_of
from tests.soak.violation import Violation

if TYPE_CHECKING:
    from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceAsyncStub

CALL_SECONDS = 15.0
PATIENCE_SECONDS = 240.0
"""How long a client repeats a call: longer than any fault and the machine's own slowness."""
MAX_PAUSE_SECONDS = 1.0
TRANSIENT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
)
"""Codes after which a client may repeat its call."""
BROKEN_BY_TRANSPORT = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
"""The same, if gRPC itself and not a server set them."""
DAMAGED = ("FILE_DAMAGED", "DATABASE_DAMAGED")
"""Reasons that tell of lost data."""


@dataclass(frozen=True)
class Answer:
    """What a call returned in the end."""

    response: Any
    """None if it was rejected."""
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    was_repeated: bool = False
    """Whether an earlier try, whose answer was lost, may have been carried out."""


def is_transient(error: grpc.aio.AioRpcError, subject: str) -> bool:
    """Whether the call may be repeated. Raises Violation for an answer that no client should ever get."""
    details, code = read_error_details(error), error.code()
    if details.reason in DAMAGED or code is grpc.StatusCode.DATA_LOSS:
        raise Violation("damaged data", subject, details.message)
    if code in BROKEN_BY_TRANSPORT:
        if status_of(error) is not None:
            raise Violation("internal error", subject, f"{code.name}: {details.message}")
        return True
    return code in TRANSIENT


class Caller:
    """All clients of a soak share it."""

    def __init__(self, music: MusicServiceAsyncStub) -> None:
        self.music = music
        self.repeats: Counter[str] = Counter()
        """Method and code → how often it was answered so."""

    async def call(self, method: str, request: Any, subject: str, seconds: float = CALL_SECONDS) -> Answer:
        """Repeats a unary call until it is answered. Raises Violation."""
        pause = Pause(f"{method} of {subject}")
        was_repeated = False
        while True:
            try:
                response = await getattr(self.music, method)(request, timeout=seconds)
                return Answer(response, was_repeated=was_repeated)
            except grpc.aio.AioRpcError as error:
                if not is_transient(error, f"{method} of {subject}"):
                    return Answer(None, error.code(), read_error_details(error).message, was_repeated)
                self.repeats[f"{method} {error.code().name}"] += 1
                was_repeated = True
                await pause.after(error)

    async def require(self, method: str, request: Any, subject: str, seconds: float = CALL_SECONDS) -> Any:
        """The same for a call that can't be rejected. Returns its response."""
        answer = await self.call(method, request, subject, seconds)
        if answer.response is None:
            raise Violation("rejected", f"{method} of {subject}", f"{answer.code.name}: {answer.message}")
        return answer.response


class Pause:
    """The pauses between the tries of one call. Raises Violation when the client's patience is at its end."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._ends_at = time.monotonic() + PATIENCE_SECONDS

    async def after(self, error: grpc.aio.AioRpcError) -> None:
        """Waits as long as the server asks for, within bounds."""
        details = read_error_details(error)
        if time.monotonic() > self._ends_at:
            raise Violation("not answered", self._subject, f"{error.code().name}: {details.message}")
        await asyncio.sleep(min(details.retry_after_seconds or 0.2, MAX_PAUSE_SECONDS))
