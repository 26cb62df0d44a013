"""Who may call what, on every method of every service: the methods and their scopes are read from the contracts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.access.v1 import access_pb2
from dgx_music.channel import connect
from dgx_music.credentials import Credentials
from dgx_music.error_status import read_error_details
from dgx_music.errors import NotFound, Unavailable
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from service_runtime.access.caller import Caller, Scope, calling_as, current_caller
from service_runtime.access.service_channel import connect_service
from service_runtime.rpc.health import health_servicer
from service_runtime.rpc.probe import probe, probe_credentials
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.access_services import (
    SERVICE_TOKEN,
    EmptyAnswers,
    TokenRegistry,
    bearer,
    call,
    methods,
    own_services,
    path_of,
    standard_services,
)
from tests.support.processes import free_ports
from tests.support.scripted_service import ScriptedService, serving_channel

OK, UNAUTHENTICATED, PERMISSION_DENIED = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
REFUSALS = UNAUTHENTICATED, PERMISSION_DENIED
DELETE = storage_pb2.DESCRIPTOR.services_by_name["StorageService"].methods_by_name["DeleteGeneration"]
SCOPES = {"read": Scope.READ, "generate": Scope.GENERATE, "admin": Scope.ADMIN}


@pytest.fixture
async def registry() -> TokenRegistry:
    return TokenRegistry()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, require_tokens=True, service_token=SERVICE_TOKEN, grace_seconds=0.1)


@pytest.fixture
async def everything(registry: TokenRegistry, settings: Settings) -> AsyncIterator[str]:
    """The address of a server that has all services, and requires tokens."""
    others = [EmptyAnswers(service) for service in own_services() if service.full_name != registry.full_name]
    async with serve_services([registry, *others], ["127.0.0.1:0"], settings) as bound:
        yield bound[0]


def scope_of(method: MethodDescriptor) -> int:
    if method.containing_service in standard_services():
        return access_pb2.SCOPE_READ
    option: Any = access_pb2.required_scope
    return int(method.GetOptions().Extensions[option]) or access_pb2.SCOPE_SERVICE


def expected(shown: str, method: MethodDescriptor) -> grpc.StatusCode:
    if shown == "service":
        return OK
    if shown == "nothing" and method.containing_service.full_name == "grpc.health.v1.Health":
        return OK  # A client that chooses among several servers can show gRPC's health checks no token.
    if shown not in SCOPES:
        return UNAUTHENTICATED
    return OK if scope_of(method) <= SCOPES[shown] else PERMISSION_DENIED


async def test_every_method_admits_those_whose_scope_includes_its_own(everything: str, registry: TokenRegistry) -> None:
    shown: dict[str, str | None] = {name: registry.issue(scope, name) for name, scope in SCOPES.items()}
    other = TokenRegistry().issue(Scope.ADMIN)
    revoked = registry.issue(Scope.ADMIN)
    registry.revoke(revoked)
    shown |= {
        "service": SERVICE_TOKEN,
        "nothing": None,
        "another server's": other,
        "revoked": revoked,
        "expired": registry.issue(Scope.ADMIN, lifetime_seconds=-1),
        "another's secret": f"dgxm_{str(shown['admin']).split('_')[1]}_{other[14:]}",
        "no token": "admin",
        "almost the service token": SERVICE_TOKEN[:-1],
    }
    tried, wrong = 0, []
    async with connect(everything) as channel:
        for method in methods([*own_services(), *standard_services()]):
            for name, token in shown.items():
                code = await call(channel, method, bearer(token))
                tried += 1
                # Beyond access, health's List is not implemented by grpcio.
                if (code if code in REFUSALS else OK) is not expected(name, method):
                    wrong.append(f"{path_of(method)} for {name}: {code.name}")
    assert wrong == []
    assert tried > 60 * len(shown)


async def test_loopback_and_unix_sockets_trust_everyone_unless_told_otherwise(
    registry: TokenRegistry, tmp_path: Path
) -> None:
    read = registry.issue(Scope.READ)
    async with serve_services(
        [registry], ["127.0.0.1:0", f"unix:{tmp_path}/s"], Settings(data_dir=tmp_path, grace_seconds=0.1)
    ) as bound:
        for address in bound:
            async with connect(address) as channel:
                for method in methods(own_services()):
                    if method.containing_service.full_name != registry.full_name:
                        continue
                    assert await call(channel, method) is OK
                    # A token that is shown decides, here too.
                    assert await call(channel, method, bearer("dgxm_no")) is UNAUTHENTICATED
                    assert await call(channel, method, bearer(read)) is expected("read", method)


async def test_refusals_say_what_to_do(everything: str, registry: TokenRegistry) -> None:
    read = registry.issue(Scope.READ, "kitchen")
    async with connect(everything) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        for metadata, reason, says in (
            ((), "TOKEN_REQUIRED", "makes the first one while no server runs"),
            (bearer("x"), "TOKEN_MALFORMED", "a token begins with dgxm_"),
            ((("authorization", "Basic x"),), "AUTHORIZATION_SCHEME", "must be `Bearer TOKEN`"),
            ((*bearer("x"), *bearer(read)), "AUTHORIZATION_SCHEME", "must be `Bearer TOKEN`, once"),
            (
                bearer(read),
                "SCOPE_REQUIRED",
                "'kitchen' has the scope read, which does not allow LoadModel: it needs the",
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.LoadModel(generation_pb2.LoadModelRequest(), metadata=metadata, timeout=60)
            details = read_error_details(caught.value)
            assert details.reason == reason
            assert says in details.message


async def test_caller_is_known_to_the_code_that_serves_the_call(
    registry: TokenRegistry, settings: Settings, tmp_path: Path
) -> None:
    seen: list[Caller] = []
    service = ScriptedService()
    service.behaviour = lambda context: seen.append(current_caller())
    token = registry.issue(Scope.GENERATE, "laptop")
    addresses = ["127.0.0.1:0", f"unix:{tmp_path}/s"]
    settings = settings.model_copy(update={"require_tokens": None})
    async with serve_services([registry, service], addresses, settings) as bound, AsyncExitStack() as stack:
        tcp, unix = [await stack.enter_async_context(connect(address)) for address in bound]
        own_name = ("dgx-music-client", "studio")
        laptop = Caller(Scope.GENERATE, "laptop", "127.0.0.1", token.split("_")[1])
        for channel, metadata, caller in (
            (tcp, bearer(token), laptop),
            (tcp, (*bearer(token), own_name), laptop),
            (
                tcp,
                (*bearer(SERVICE_TOKEN), ("dgx-music-client", "K%C3%BCche%0A")),
                Caller(Scope.SERVICE, "Küche", "127.0.0.1"),
            ),
            (tcp, (own_name,), Caller(Scope.ADMIN, "studio", "127.0.0.1")),
            (unix, (), Caller(Scope.ADMIN, "unix", "unix")),
        ):
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            await stub.ListModels(generation_pb2.ListModelsRequest(), metadata=metadata, timeout=60)
            stream = stub.Generate(generation_pb2.GenerateRequest(), metadata=metadata, timeout=60)
            await stream.read()
            await stream.read()
            stream.cancel()
            await asyncio.wait_for(service.closed.wait(), 60)
            service.closed.clear()
            assert len(seen) >= 2
            assert set(seen) == {caller}
            seen.clear()


async def test_calls_per_minute_are_limited(everything: str, registry: TokenRegistry) -> None:
    limited, other = registry.issue(Scope.READ, calls_per_minute=2), registry.issue(Scope.READ)
    async with connect(everything) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.ListModelsRequest()
        await stub.ListModels(request, metadata=bearer(limited), timeout=60)
        with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):  # A refused call counts too.
            await stub.LoadModel(generation_pb2.LoadModelRequest(), metadata=bearer(limited), timeout=60)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListModels(request, metadata=bearer(limited), timeout=60)
        await stub.ListModels(request, metadata=bearer(other), timeout=60)
    details = read_error_details(caught.value)
    assert (details.code, details.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT")
    assert details.retry_after_seconds is not None
    assert 0 < details.retry_after_seconds <= 30


class TestOtherServers:
    """A server that has no tokens of its own asks storage."""

    @pytest.fixture
    async def storage(self, registry: TokenRegistry, settings: Settings) -> AsyncIterator[str]:
        async with serve_services([registry], ["127.0.0.1:0"], settings) as bound:
            yield bound[0]

    async def test_tokens_are_verified_by_storage(
        self, registry: TokenRegistry, storage: str, settings: Settings
    ) -> None:
        token = registry.issue(Scope.READ)
        own = settings.model_copy(update={"storage_address": storage})
        async with serve_services([ScriptedService()], ["127.0.0.1:0"], own) as bound, connect(bound[0]) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            for _ in range(5):
                await stub.ListModels(generation_pb2.ListModelsRequest(), metadata=bearer(token), timeout=60)
            assert registry.verifications == 1  # The others were remembered.
            await self.assert_refused(stub, TokenRegistry().issue(Scope.READ), UNAUTHENTICATED, "TOKEN_INVALID")
            registry.problem = Unavailable("the database is away", reason="AWAY")
            await self.assert_refused(
                stub, registry.issue(Scope.READ), grpc.StatusCode.UNAVAILABLE, "TOKENS_UNAVAILABLE"
            )

    async def test_server_that_storage_does_not_know_is_not_the_callers_fault(
        self, registry: TokenRegistry, storage: str, settings: Settings
    ) -> None:
        token = registry.issue(Scope.ADMIN)
        for service_token in (None, "x" * 32):
            own = settings.model_copy(update={"storage_address": storage, "service_token": None})
            if service_token is not None:
                own = Settings(**{**own.model_dump(), "service_token": service_token})
            async with serve_services([ScriptedService()], ["127.0.0.1:0"], own) as bound, connect(bound[0]) as channel:
                stub = generation_pb2_grpc.GenerationServiceStub(channel)
                error = await self.assert_refused(stub, token, grpc.StatusCode.UNAVAILABLE, "TOKENS_UNAVAILABLE")
                assert "set the same DGX_MUSIC_SERVICE_TOKEN for all services" in str(error.details())

    async def assert_refused(self, stub: Any, token: str, code: grpc.StatusCode, reason: str) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListModels(generation_pb2.ListModelsRequest(), metadata=bearer(token), timeout=60)
        assert (caught.value.code(), read_error_details(caught.value).reason) == (code, reason)
        return caught.value


async def test_service_names_the_client_for_which_it_calls_and_renews_its_token(
    registry: TokenRegistry, settings: Settings, tmp_path: Path
) -> None:
    seen: list[Caller] = []
    service = ScriptedService()
    service.behaviour = lambda context: seen.append(current_caller())
    file = tmp_path / "service-token"
    file.write_text(f"{SERVICE_TOKEN}\n")
    own = settings.model_copy(update={"service_token": None, "service_token_file": file})
    async with (
        serve_services([registry, service], ["127.0.0.1:0"], own) as bound,
        connect_service(bound[0], own) as channel,
    ):
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        with calling_as(Caller(Scope.READ, "Küche", "10.0.0.3", "abcdefgh")):
            await stub.ListModels(generation_pb2.ListModelsRequest(), timeout=60)
        file.write_text(f"{'n' * 40}\n")
        await stub.ListModels(generation_pb2.ListModelsRequest(), timeout=60)
        async with connect(bound[0], Credentials(token=SERVICE_TOKEN)) as with_the_old:
            with pytest.raises(grpc.aio.AioRpcError):
                await generation_pb2_grpc.GenerationServiceStub(with_the_old).ListModels(
                    generation_pb2.ListModelsRequest(), timeout=60
                )
    assert [(caller.scope, caller.client) for caller in seen] == [
        (Scope.SERVICE, "Küche"),
        (Scope.SERVICE, "127.0.0.1"),
    ]


async def test_probe_shows_what_its_settings_have(everything: str, settings: Settings, registry: TokenRegistry) -> None:
    assert await probe(everything) is None
    assert await probe(everything, probe_credentials(settings)) is None
    assert "expired" in str(await probe(everything, Credentials(token=registry.issue(Scope.READ, lifetime_seconds=-1))))
    own = Settings(token=registry.issue(Scope.READ), service_token="x" * 32)
    assert await probe(everything, probe_credentials(own)) is None


async def test_one_of_several_servers_that_require_tokens_is_chosen(
    everything: str, settings: Settings, registry: TokenRegistry
) -> None:
    """gRPC checks the health of each by itself, and shows them no token."""
    servers = f"ipv4:{everything},127.0.0.1:{free_ports(1)[0]}"
    credentials = Credentials(token=registry.issue(Scope.READ))
    async with connect(servers, credentials) as channel:
        music = gateway_pb2_grpc.MusicServiceStub(channel)
        await music.GetStatistics(storage_pb2.GetStatisticsRequest(), timeout=60, wait_for_ready=True)


async def test_strangers_cannot_watch_the_health_without_end(everything: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_servicer, "MAX_WATCHERS", 2)
    async with connect(everything) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(3)]
        answers = await asyncio.gather(*(watch.read() for watch in watches), return_exceptions=True)
        (refused,) = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        next(watch for watch, answer in zip(watches, answers, strict=True) if answer is not refused).cancel()
        while health_servicer.MAX_WATCHERS:  # The place of one that has ended is free again.
            watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                break


async def test_token_file_is_read_again(everything: str, registry: TokenRegistry, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(registry.issue(Scope.READ))
    async with connect(everything, Settings(token_file=file).credentials()) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest(), timeout=60)
        file.write_text("dgxm_wrong")
        with pytest.raises(grpc.aio.AioRpcError):
            await health.Check(health_pb2.HealthCheckRequest(), timeout=60)
        file.write_text(registry.issue(Scope.READ))
        await health.Check(health_pb2.HealthCheckRequest(), timeout=60)


@pytest.mark.parametrize("shown", [(), bearer("x"), bearer("dgxm_aaaaaaaa_" + "a" * 43)])
async def test_request_of_a_stranger_is_not_read(everything: str, shown: Any) -> None:
    async with connect(everything) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            # Reading it would end the call with UNKNOWN, because it is no message.
            await channel.unary_unary(path_of(DELETE))(b"\xff" * 1000, metadata=shown, timeout=60)
        assert caught.value.code() is UNAUTHENTICATED


async def test_changes_and_refusals_are_in_the_audit_log(
    registry: TokenRegistry, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "audit.log"
    generate, read = registry.issue(Scope.GENERATE, "laptop"), registry.issue(Scope.READ, "radio")
    by_gateway = (*bearer(SERVICE_TOKEN), ("dgx-music-client", "laptop"))
    own = settings.model_copy(update={"audit_log": file})
    async with serve_services([registry], ["127.0.0.1:0"], own) as bound, connect(bound[0]) as channel:
        storage = storage_pb2_grpc.StorageServiceStub(channel)
        for metadata in (bearer(generate), bearer(read), (), by_gateway):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await storage.DeleteGeneration(
                    storage_pb2.DeleteGenerationRequest(id="a1"), metadata=metadata, timeout=60
                )
            with contextlib.suppress(grpc.aio.AioRpcError):
                await storage.GetGeneration(storage_pb2.GetGenerationRequest(id="b2"), metadata=metadata, timeout=60)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["client"], line["code"], line["scope"]) for line in lines] == [
        ("laptop", "OK", "generate"),
        ("radio", "PERMISSION_DENIED", "read"),
        (None, "UNAUTHENTICATED", None),
    ]
    for line in lines:
        assert line["method"] == "/dgx_music.storage.v1.StorageService/DeleteGeneration"
        assert line["host"] == "127.0.0.1"
    assert [line["ids"] for line in lines] == [["a1"], ["a1"], []]  # What a stranger sends is not read.
    assert lines[0]["token_id"] == generate.split("_")[1]
    assert generate not in file.read_text()


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (NotFound("model", "x"), "NOT_FOUND"),
        (RuntimeError("x"), "INTERNAL"),
        (grpc.aio.AioRpcError(grpc.StatusCode.DATA_LOSS, grpc.aio.Metadata(), grpc.aio.Metadata()), "DATA_LOSS"),
        (None, "ABORTED"),
    ],
)
async def test_audit_log_says_how_a_change_ended(failure: Exception | None, code: str, tmp_path: Path) -> None:
    service = ScriptedService()

    async def fail(context: Any) -> None:
        if failure is None:
            await context.abort(grpc.StatusCode.ABORTED, "x")
        else:
            raise failure

    service.behaviour = fail
    file = tmp_path / "audit.log"
    settings = Settings(data_dir=tmp_path, audit_log=file, grace_seconds=0.1)
    async with serving_channel(service, settings) as channel:
        stream = generation_pb2_grpc.GenerationServiceStub(channel).Generate(
            generation_pb2.GenerateRequest(), timeout=60
        )
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in stream:
                pass
    assert json.loads(file.read_text())["code"] == code
