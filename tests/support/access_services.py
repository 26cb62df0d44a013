"""Gives services that answer every method of a contract with an empty message, `TokenRegistry`, which issues tokens in
place of storage, and the methods of all contracts."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from dgx_music.access.v1 import access_pb2
from dgx_music.errors import Unauthenticated
from service_runtime.access.token_format import create_token, hash_token

PACKAGE = Path(__file__).parents[2] / "dgx_music"
SERVICE_TOKEN = "of-the-services-" * 2
STORAGE = "dgx_music.storage.v1.StorageService"


def own_services() -> list[ServiceDescriptor]:
    """Returns the services of all contracts in `protos`."""
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.glob("*/v1/*_pb2.py")]
    modules = [importlib.import_module(name) for name in sorted(names)]
    return [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]


def standard_services() -> list[ServiceDescriptor]:
    """Returns health and reflection, which every server has."""
    return [
        health_pb2.DESCRIPTOR.services_by_name["Health"],
        reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
    ]


def path_of(method: MethodDescriptor) -> str:
    """Returns what names the method on the wire."""
    return f"/{method.containing_service.full_name}/{method.name}"


def kind_of(method: MethodDescriptor) -> str:
    """Returns e.g. "unary_stream"."""
    return f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"


class EmptyAnswers:
    """A service that answers each of its methods with an empty message."""

    def __init__(self, descriptor: ServiceDescriptor) -> None:
        self.full_name = descriptor.full_name
        self._descriptor = descriptor
        self.released = asyncio.Event()
        """Streams of responses wait for it before they end."""
        self.released.set()

    def add_to(self, server: grpc.aio.Server) -> None:
        handlers = {method.name: self._handler(method) for method in self._descriptor.methods}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(self.full_name, handlers)])

    def _handler(self, method: MethodDescriptor) -> Any:
        request_type = message_factory.GetMessageClass(method.input_type)
        response_type = message_factory.GetMessageClass(method.output_type)

        async def answer(request: Any, context: Any) -> Any:
            if method.client_streaming:
                async for _ in request:
                    pass
            return await self.answer(method.name, request) or response_type()

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            yield response_type()
            await self.released.wait()

        build = getattr(grpc, f"{kind_of(method)}_rpc_method_handler")
        return build(
            stream if method.server_streaming else answer, request_type.FromString, response_type.SerializeToString
        )

    async def answer(self, method: str, request: Any) -> Any:
        """Returns the response of a method with one; None for an empty one."""

    async def start(self) -> None: ...

    async def check(self) -> None: ...

    async def drain(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass
class IssuedToken:
    secret: str
    token: access_pb2.Token
    is_revoked: bool = False


class TokenRegistry(EmptyAnswers):
    """Issues and verifies tokens, and answers VerifyToken as storage does."""

    def __init__(self) -> None:
        super().__init__(next(service for service in own_services() if service.full_name == STORAGE))
        self.issued: dict[str, IssuedToken] = {}
        self.verifications = 0
        self.problem: Exception | None = None
        """Raised by each verification."""

    def issue(
        self, scope: int, name: str = "laptop", *, calls_per_minute: int = 0, lifetime_seconds: float | None = None
    ) -> str:
        token_id, secret = create_token()
        token = access_pb2.Token(id=token_id, name=name, scope=access_pb2.Scope.ValueType(scope))
        token.limits.calls_per_minute = calls_per_minute
        if lifetime_seconds is not None:
            token.expires_at.FromNanoseconds(time.time_ns() + int(lifetime_seconds * 1e9))
        self.issued[token_id] = IssuedToken(secret, token)
        return secret

    def revoke(self, secret: str) -> None:
        next(issued for issued in self.issued.values() if issued.secret == secret).is_revoked = True

    async def verify_token(self, token_id: str, secret_sha256: bytes) -> access_pb2.Token:
        self.verifications += 1
        if self.problem is not None:
            raise self.problem
        issued = self.issued.get(token_id)
        if issued is None or hash_token(issued.secret) != secret_sha256 or issued.is_revoked:
            raise Unauthenticated("the token is not valid", reason="TOKEN_INVALID")
        return issued.token

    async def answer(self, method: str, request: Any) -> Any:
        if method != "VerifyToken" or not request.id:
            return None
        return access_pb2.VerifyTokenResponse(token=await self.verify_token(request.id, request.secret_sha256))


def bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    """Returns the metadata that shows a token."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


async def call(channel: grpc.aio.Channel, method: MethodDescriptor, metadata: Any = ()) -> grpc.StatusCode:
    """Calls any method with an empty request, reads the first response, and returns the status."""
    multicallable = getattr(channel, kind_of(method))(path_of(method))
    options = {"metadata": metadata, "timeout": 60}
    running = multicallable(requests(), **options) if method.client_streaming else multicallable(b"", **options)
    try:
        if method.server_streaming:
            await running.read()
            if not running.done():
                running.cancel()
                return grpc.StatusCode.OK
            return await running.code()
        await running
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def requests() -> AsyncIterator[bytes]:
    yield b""


def methods(services: list[ServiceDescriptor]) -> Iterator[MethodDescriptor]:
    """Returns the methods of the services."""
    for service in services:
        yield from service.methods
