"""Fault 40: bytes that are no message, forged page tokens, and ids of a megabyte. Each has a status that says what is
wrong, without the names of our classes; the log has no traceback and no line of a megabyte."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.access.v1 import access_pb2
from dgx_music.error_status import ErrorDetails, read_error_details, status_of
from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.service_processes import ServiceProcesses, service_processes

TIMEOUT_SECONDS = 60.0
STORAGE = "/dgx_music.storage.v1.StorageService/"
BROKEN = {
    "corrupt": b"\xff" * 11,
    "cut off": b"\x0a\x24abc",
    "not UTF-8": b"\x0a\x02\xff\xfe",
    "too deep": b"\x3b" * 500,
}
MAX_TEXT = 1000
POSITIONS = ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "a\0b", "\ud800", None, 2**63, [], "x" * 9000)


async def refusal(call: Any) -> ErrorDetails:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        pytest.fail(f"accepted: {await call}")
    assert status_of(raised.value) is not None, raised.value
    assert len(raised.value.details() or "") <= MAX_TEXT
    return read_error_details(raised.value)


async def refused_fields(call: Any) -> list[str]:
    """Returns the fields that are refused as INVALID_ARGUMENT, or the status; of a call that succeeds, none."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        details = read_error_details(error)
        return list(details.violations) if details.code is grpc.StatusCode.INVALID_ARGUMENT else [details.code.name]
    return []


async def check_bytes(channel: grpc.aio.Channel) -> None:
    async def stream(data: bytes) -> Any:
        yield data

    reflection = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    for data in BROKEN.values():
        for method in (STORAGE + "GetGeneration", "/grpc.health.v1.Health/Check"):
            details = await refusal(channel.unary_unary(method)(data, timeout=TIMEOUT_SECONDS))
            assert (details.code.name, details.reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")
            assert "DecodeError" not in details.message
        watched = channel.unary_stream(STORAGE + "WatchGeneration")(data, timeout=TIMEOUT_SECONDS)
        assert (await refusal(anext(aiter(watched)))).reason == "MALFORMED_REQUEST"
    answers = reflection(stream(BROKEN["corrupt"]), timeout=TIMEOUT_SECONDS)
    assert (await refusal(anext(aiter(answers)))).reason == "MALFORMED_REQUEST"


async def check_page_tokens(storage: Any) -> None:
    tokens = [await storage.CreateToken(access_pb2.CreateTokenRequest(name=name, scope=1)) for name in ("a", "b")]
    for index in range(2):
        request = pb.CreateGenerationRequest(
            prompt=f"house {index}", model_name="x", duration_seconds=1, sample_rate_hz=8000, channels=1
        )
        await storage.CreateGeneration(request)
    lists = (
        (storage.ListGenerations, pb.ListGenerationsRequest),
        (storage.ListPrompts, pb.ListPromptsRequest),
        (storage.ListTokens, access_pb2.ListTokensRequest),
    )
    for call, kind in lists:
        given = (await call(kind(page_size=1))).next_page_token
        content = json.loads(base64.urlsafe_b64decode(given))
        forged = [base64.urlsafe_b64encode(b"[" * 100_000).decode(), "é", "=", given[:-5]]
        for index in range(len(content)):
            for position in POSITIONS:
                changed = [*content[:index], position, *content[index + 1 :]]
                forged.append(base64.urlsafe_b64encode(json.dumps(changed).encode()).decode())
        for token in forged:
            assert await refused_fields(call(kind(page_size=1, page_token=token))) in ([], ["page_token"]), (
                kind,
                token,
            )
    for name in ("a\0b", "x" * (1 << 20), "ß" * 10_000, tokens[0].token.id + "\0"):
        assert (await refusal(storage.RevokeToken(access_pb2.RevokeTokenRequest(id=name)))).code.name == "NOT_FOUND"
        verified = storage.VerifyToken(access_pb2.VerifyTokenRequest(id=name, secret_sha256=bytes(32)))
        assert (await refusal(verified)).code.name == "UNAUTHENTICATED"


async def check_health(channel: grpc.aio.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    listed = await stub.List(health_pb2.HealthListRequest(), timeout=TIMEOUT_SECONDS)
    assert {state.status for state in listed.statuses.values()} == {health_pb2.HealthCheckResponse.SERVING}
    for name in ("\x1b[31m\u202e", "x" * (1 << 20)):
        details = await refusal(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_SECONDS))
        assert details.code.name == "NOT_FOUND"
        assert details.message.isprintable()


async def test_malformed_requests_are_refused_with_a_reason(tmp_path: Path, url: str) -> None:
    async with service_processes(tmp_path / "data", "storage", DGX_MUSIC_DATABASE_URL=url) as services:
        await check_bytes(services.channel("storage"))
        await check_page_tokens(services.storage)
        await check_health(services.channel("storage"))
        await check_log(services)


async def check_log(services: ServiceProcesses) -> None:
    lines = services.running["storage"].log().splitlines()
    assert not [line[:3000] for line in lines if "unexpected_error" in line or "Traceback" in line]
    assert max(map(len, lines)) < 3 * MAX_TEXT
