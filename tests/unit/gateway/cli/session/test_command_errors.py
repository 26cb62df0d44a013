"""Errors as one line that names what to change, and an exit status."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from pydantic import ValidationError

from dgx_music.error_status import DETAILS_KEY, to_status
from dgx_music.errors import InvalidArgument, Unavailable
from gateway.cli.session.command_errors import BAD_INPUT, FAILURE, CommandError, format_error
from gateway.config import GatewaySettings


def rpc_error(code: grpc.StatusCode, details: str, status: status_pb2.Status | None = None) -> grpc.aio.AioRpcError:
    trailers = () if status is None else ((DETAILS_KEY, status.SerializeToString()),)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (CommandError("no\nway", BAD_INPUT), "no way", BAD_INPUT),
        (InvalidArgument("duration_seconds", "must be more"), "--duration: must be more", BAD_INPUT),
        (InvalidArgument("database_url", "is none"), "database_url: is none", BAD_INPUT),
        (Unavailable("asleep", reason="ASLEEP"), "asleep", FAILURE),
        (rpc_error(grpc.StatusCode.NOT_FOUND, "there is none"), "there is none", FAILURE),
        (rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "bad"), "bad", BAD_INPUT),
        (
            rpc_error(grpc.StatusCode.UNAVAILABLE, "Socket closed"),
            "lost the connection to the server, or could not connect to it",
            FAILURE,
        ),
        (
            OSError(28, "No space left on device", "/a"),
            "/a: No space left on device; use --debug to see what failed",
            1,
        ),
        (ValueError("odd"), "unexpected ValueError: odd; use --debug to see where", FAILURE),
    ],
)
def test_error_is_formatted_with_exit_status(error: Exception, line: str, status: int) -> None:
    assert format_error(error) == (line, status)


def test_violation_names_option_of_its_field() -> None:
    status = to_status(InvalidArgument("model_name", "there is none"))
    error = rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "model_name: there is none", status)
    assert format_error(error) == ("--model: there is none", BAD_INPUT)


def test_all_violations_are_listed() -> None:
    status = status_pb2.Status()
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=field, description="is bad") for field in ("seed", "new")
    ]
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=violations))
    assert format_error(rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "", status))[0] == "--seed: is bad; new: is bad"


def test_exceeded_deadline_suggests_retry() -> None:
    line, status = format_error(rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
    assert "try again" in line
    assert status == FAILURE


def test_invalid_setting_names_environment_variable() -> None:
    with pytest.raises(ValidationError) as caught:
        GatewaySettings.model_validate({"metrics_port": 70_000})
    line, status = format_error(caught.value)
    assert line.startswith("DGX_MUSIC_METRICS_PORT=70000: ")
    assert status == BAD_INPUT
