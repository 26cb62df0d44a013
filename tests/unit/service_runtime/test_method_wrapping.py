"""Tests what surrounds a call, for unary methods, async generators, and coroutines that write a stream themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from service_runtime.method_wrapping import wrap_method


class Scope:
    """Notes what happens to a call."""

    def __init__(self, *, has_step: bool = False) -> None:
        self.has_step = has_step
        self.events: list[Any] = []

    def open(self, request: Any, context: Any) -> Scope:
        self.events.append(("open", request, context))
        return self

    async def __aenter__(self) -> Any:
        return self.step if self.has_step else None

    async def step(self, step: Callable[[], Awaitable[Any]]) -> Any:
        result = await step()
        self.events.append(("response", result))
        return result

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.events.append(("end", kind))


async def double(request: int, context: Any) -> int:
    return 2 * request


async def count(request: int, context: Any) -> AsyncIterator[int]:
    for number in range(request):
        yield number


@pytest.mark.parametrize("has_step", [False, True])
def test_unary_method(has_step: bool) -> None:
    scope = Scope(has_step=has_step)
    handler: Any = wrap_method(grpc.unary_unary_rpc_method_handler(double), scope.open)
    assert asyncio.run(handler.unary_unary(21, "context")) == 42
    assert scope.events == [("open", 21, "context"), *[("response", 42)] * has_step, ("end", None)]


@pytest.mark.parametrize("has_step", [False, True])
def test_generator(has_step: bool) -> None:
    scope = Scope(has_step=has_step)
    handler: Any = wrap_method(grpc.unary_stream_rpc_method_handler(count), scope.open)

    async def read() -> list[int]:
        return [number async for number in handler.unary_stream(2, None)]

    assert asyncio.run(read()) == [0, 1]
    assert scope.events[1:] == [*[("response", 0), ("response", 1)] * has_step, ("end", None)]


@pytest.mark.parametrize("has_step", [False, True])
def test_generator_is_closed_with_the_call(has_step: bool) -> None:
    closed = []

    async def endless(request: int, context: Any) -> AsyncIterator[int]:
        try:
            while True:
                yield request
        finally:
            closed.append(request)

    scope = Scope(has_step=has_step)
    handler: Any = wrap_method(grpc.stream_stream_rpc_method_handler(endless), scope.open)

    async def leave() -> list[Any]:
        responses = handler.stream_stream(7, None)
        assert await anext(responses) == 7
        await responses.aclose()
        return [*closed, scope.events[-1]]

    assert asyncio.run(leave()) == [7, ("end", GeneratorExit)]


def test_method_that_writes_to_the_context_itself() -> None:
    scope = Scope()
    handler: Any = wrap_method(grpc.unary_stream_rpc_method_handler(double), scope.open)
    assert asyncio.run(handler.unary_stream(1, None)) == 2


def test_error_of_the_method_ends_the_scope() -> None:
    async def fail(request: Any, context: Any) -> None:
        raise LookupError

    scope = Scope()
    handler: Any = wrap_method(grpc.unary_unary_rpc_method_handler(fail), scope.open)
    with pytest.raises(LookupError):
        asyncio.run(handler.unary_unary(1, None))
    assert scope.events[-1] == ("end", LookupError)


def test_serializers_stay_unless_replaced() -> None:
    handler = grpc.unary_unary_rpc_method_handler(double, int, bytes)
    kept = wrap_method(handler, Scope().open)
    replaced: Any = wrap_method(handler, Scope().open, float, repr)  # type: ignore[arg-type]
    assert (kept.request_deserializer, kept.response_serializer) == (int, bytes)
    assert (replaced.request_deserializer, replaced.response_serializer) == (float, repr)
