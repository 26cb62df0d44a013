"""What an interceptor does around each call, written once for unary calls and streams."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio

if TYPE_CHECKING:  # Generic for the type checker only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
    Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]

Step = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Awaits what it is given, the method of a unary call or the next response of a stream, and returns its result."""


class CallScope(Protocol):
    """What surrounds one call: it is entered before the method, and left with the error that ends the call, if any."""

    async def __aenter__(self) -> Step | None:
        """Returns what is to await each response, or None. Raises what keeps the call from being served."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        """Raises the error to end the call with, if it is not that one. Never returns True."""


_KINDS: dict[tuple[bool, bool], tuple[str, Callable[..., Handler]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""(request is a stream, response is a stream) → the handler's attribute that holds the method, and its constructor."""


def wrap_method(
    handler: Handler,
    open_scope: Callable[[Any, Context], CallScope],
    deserializer: Callable[[bytes], Any] | None = None,
    serializer: Callable[[Any], bytes] | None = None,
) -> Handler:
    """Returns the handler with a scope around each call. `open_scope` gets the request, or the iterator of requests.

    A deserializer or serializer replaces the handler's own.
    """
    attribute, build_handler = _KINDS[handler.request_streaming, handler.response_streaming]
    method = getattr(handler, attribute)

    async def call(request: Any, context: Context) -> Any:
        try:
            async with open_scope(request, context) as step:
                if step is None:
                    return await method(request, context)
                return await step(partial(method, request, context))
        except grpc.aio.AbortError as error:
            _release_frames(error)
            raise
        finally:
            del request, context

    async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            # Closed here and not by the garbage collector, so that a cancelled call releases its resources at once.
            async with open_scope(request, context) as step, aclosing(method(request, context)) as responses:
                if step is None:
                    async for response in responses:
                        yield response
                    return
                while True:
                    try:
                        response = await step(responses.__anext__)
                    except StopAsyncIteration:
                        return
                    yield response
        except grpc.aio.AbortError as error:
            _release_frames(error)
            raise
        finally:
            del request, context

    # A streaming method is an async generator, or a coroutine that writes to the context itself (health's Watch).
    wrapped = generate if inspect.isasyncgenfunction(method) else call
    return build_handler(
        wrapped, deserializer or handler.request_deserializer, serializer or handler.response_serializer
    )


def _release_frames(abort: grpc.aio.AbortError) -> None:
    """Lets go of the variables of what has led to the end of a call: requests, samples, decoders with their threads.

    gRPC keeps the error with the call, and the frames of a traceback refer to the call, or to a task that has failed
    with the error: only the garbage collector would free them, after hundreds of refused calls.
    """
    found: list[BaseException | None] = [abort]
    released: set[int] = set()  # Causes and contexts may form a cycle.
    while found:
        error = found.pop()
        if error is not None and id(error) not in released:
            released.add(id(error))
            error.__traceback__ = None
            found += (error.__cause__, error.__context__)
    abort.__cause__ = abort.__context__ = None
