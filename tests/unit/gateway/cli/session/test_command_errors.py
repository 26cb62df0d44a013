"""Errors as one line that names what to change, and an exit status."""

from __future__ import annotations

import json

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from pydantic import ValidationError

from dgx_music.error_status import DETAILS_KEY, to_status
from dgx_music.errors import InvalidArgument, ResourceExhausted, Unavailable
from gateway.cli.session.command_errors import (
    BAD_INPUT,
    FAILURE,
    TRY_AGAIN,
    CommandError,
    Failure,
    describe_error,
    format_error,
)
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
            TRY_AGAIN,
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
    assert status == TRY_AGAIN


def test_invalid_setting_names_environment_variable() -> None:
    with pytest.raises(ValidationError) as caught:
        GatewaySettings.model_validate({"metrics_port": 70_000})
    line, status = format_error(caught.value)
    assert line.startswith("DGX_MUSIC_METRICS_PORT=70000: ")
    assert status == BAD_INPUT


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (
            CommandError("--output: a.wav already exists", BAD_INPUT),
            ("INVALID_ARGUMENT", "INVALID_OPTION", "--output", None, BAD_INPUT),
        ),
        (CommandError("sunny: no"), ("FAILED_PRECONDITION", "COMMAND_FAILED", None, None, FAILURE)),
        (
            CommandError("x", code="NOT_FOUND", reason="MODEL_MISSING"),
            ("NOT_FOUND", "MODEL_MISSING", None, None, FAILURE),
        ),
        (InvalidArgument("seed", "is bad"), ("INVALID_ARGUMENT", "INVALID_FIELD", "--seed", None, BAD_INPUT)),
        (
            Unavailable("busy", reason="BUSY", retry_after_seconds=1.5),
            ("UNAVAILABLE", "BUSY", None, 1.5, TRY_AGAIN),
        ),
        (
            rpc_error(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "",
                to_status(ResourceExhausted("full", reason="QUEUE_FULL", retry_after_seconds=2)),
            ),
            ("RESOURCE_EXHAUSTED", "QUEUE_FULL", None, 2.0, TRY_AGAIN),
        ),
        (
            rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "", to_status(InvalidArgument("seed", "is bad"))),
            ("INVALID_ARGUMENT", "INVALID_FIELD", "--seed", None, BAD_INPUT),
        ),
        (
            rpc_error(grpc.StatusCode.UNAVAILABLE, "gone"),
            ("UNAVAILABLE", "CONNECTION_LOST", None, None, TRY_AGAIN),
        ),
        (OSError(28, "full"), ("INTERNAL", "SYSTEM_ERROR", None, None, FAILURE)),
        (KeyError("x"), ("INTERNAL", "UNEXPECTED_ERROR", None, None, FAILURE)),
    ],
)
def test_error_has_code_reason_field_and_delay(error: Exception, failure: tuple[object, ...]) -> None:
    found = describe_error(error)
    assert (found.code, found.reason, found.field, found.retry_after_seconds, found.exit_status) == failure


def test_error_as_json_is_one_line_of_ascii() -> None:
    line = Failure("caf\u00e9\n\x7f", field="--x", retry_after_seconds=2.0).to_json()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {
        "error": {
            "code": "FAILED_PRECONDITION",
            "reason": "COMMAND_FAILED",
            "message": "caf\u00e9\n\x7f",
            "field": "--x",
            "retry_after_seconds": 2.0,
        }
    }


def test_message_of_an_error_is_printable() -> None:
    assert format_error(CommandError("a\x1b[2J\nb\u202ec"))[0] == "a\ufffd[2J bc"
