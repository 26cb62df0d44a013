"""Calls that a busy server refuses are repeated when it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from dgx_music.error_status import DETAILS_KEY, to_status
from dgx_music.errors import ResourceExhausted, Unavailable
from gateway.cli.session import patient_channel
from gateway.cli.session.patient_channel import PatientChannel

BUSY = ResourceExhausted("the server is busy", reason="SERVER_BUSY", retry_after_seconds=0.01)


def call_error(error: ResourceExhausted | Unavailable) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata((DETAILS_KEY, to_status(error).SerializeToString()))
    return grpc.aio.AioRpcError(grpc.StatusCode[error.code], grpc.aio.Metadata(), trailing, error.message)


class Server:
    """Fails calls with the errors, one after another, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def answer(self, request: str) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return request

    async def stream(self, request: str) -> AsyncIterator[str]:
        yield await self.answer(request)

    async def break_off(self, request: str) -> AsyncIterator[str]:
        self.calls += 1
        yield request
        raise self.errors.pop(0)


class Patient:
    """A channel that calls the server. `notices` are what it has told the user."""

    def __init__(self, *, fails_over: bool = False) -> None:
        self.notices: list[str] = []
        inner = grpc.aio.insecure_channel("127.0.0.1:1")
        self.channel = PatientChannel(inner, self.notices.append, fails_over=fails_over)

    async def call(self, server: Server, method: str = "/S/M") -> Any:
        return await self.channel._wrap(lambda channel: server.answer, method, False, False)("request")

    async def stream(self, call: Callable[[str], AsyncIterator[str]], method: str = "/S/M") -> list[Any]:
        return [response async for response in self.channel._wrap(lambda channel: call, method, False, True)("request")]


@pytest.fixture
async def patient() -> AsyncIterator[Patient]:
    patient = Patient()
    async with patient.channel:
        yield patient


async def test_refused_calls_are_repeated_and_short_waits_are_no_news(patient: Patient) -> None:
    server = Server(call_error(BUSY), call_error(BUSY))
    assert await patient.call(server) == "request"
    assert server.calls == 3
    server = Server(call_error(BUSY), call_error(BUSY))
    assert await patient.stream(server.stream) == ["request"]
    assert server.calls == 3
    assert patient.notices == []


async def test_longer_wait_is_told_once_for_all_calls(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_channel, "QUIET_SECONDS", 0.0)
    await asyncio.gather(*(patient.call(Server(call_error(BUSY))) for _ in range(3)))
    assert patient.notices == ["waiting 0 s: the server is busy"]


@pytest.mark.parametrize(
    "error",
    [
        ResourceExhausted("the queue is full", reason="QUEUE_FULL", retry_after_seconds=0.01),
        Unavailable("the database is gone", reason="DATABASE_UNAVAILABLE", retry_after_seconds=0.01),
        ResourceExhausted("the server is busy", reason="SERVER_BUSY", retry_after_seconds=61),
    ],
)
async def test_other_errors_and_longer_waits_are_the_commands_concern(
    patient: Patient, error: ResourceExhausted | Unavailable
) -> None:
    server = Server(call_error(error))
    with pytest.raises(grpc.aio.AioRpcError):
        await patient.call(server)
    assert server.calls == 1


async def test_stream_that_has_begun_is_not_repeated(patient: Patient) -> None:
    server = Server(call_error(BUSY))
    with pytest.raises(grpc.aio.AioRpcError):
        await patient.stream(server.break_off)
    assert server.calls == 1


def test_call_with_a_stream_of_requests_is_left_alone(patient: Patient) -> None:
    call = Server().answer
    assert patient.channel._wrap(lambda channel: call, "/S/M", True, False) == call


LOST = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "Socket closed")


@pytest.mark.parametrize(
    ("method", "fails_over", "is_repeated"),
    [
        ("/S/CreateGeneration", True, True),
        ("/S/CreateGeneration", False, False),  # There is one server only: the user is told at once.
        ("/S/RetryGeneration", True, False),
    ],
)
async def test_lost_creation_goes_on_at_another_server(method: str, fails_over: bool, is_repeated: bool) -> None:
    server, patient = Server(LOST), Patient(fails_over=fails_over)
    if is_repeated:
        assert await patient.call(server, method) == "request"
        return
    with pytest.raises(grpc.aio.AioRpcError):
        await patient.call(server, method)


async def test_lost_watch_starts_anew_at_another_server_but_not_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    server, patient = Server(LOST, LOST), Patient(fails_over=True)
    monkeypatch.setattr(patient_channel, "FAILOVER_SECONDS", 0.0)
    with pytest.raises(grpc.aio.AioRpcError):
        await patient.stream(server.break_off, "/S/StreamAudio")
    assert server.calls == 1
    with pytest.raises(IndexError):  # It has no more errors.
        await patient.stream(server.break_off, "/S/WatchGeneration")
    assert server.calls == 3


async def test_lost_call_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_channel, "FAILOVER_SECONDS", 0.0)
    server = Server(*[LOST] * 100)
    with pytest.raises(grpc.aio.AioRpcError):
        await Patient(fails_over=True).call(server, "/S/CreateGeneration")
    assert 1 < server.calls < 5
