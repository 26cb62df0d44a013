"""What went wrong, in one line that says what to do, and the exit status that goes with it."""

from __future__ import annotations

import grpc
import grpc.aio
from pydantic import ValidationError

from dgx_music.errors import InvalidArgument, ServiceError
from dgx_music.status import read_error_details

FAILURE, BAD_INPUT = 1, 2
"""Exit statuses. 128 + the signal's number is that of an interrupted command."""

ARGUMENTS = {
    "prompt": "PROMPT",
    "id": "ID",
    "generation_id": "ID",
    "duration_seconds": "--duration",
    "model_name": "--model",
    "seed": "--seed",
    "sampling.temperature": "--temperature",
    "sampling.top_k": "--top-k",
    "sampling.top_p": "--top-p",
    "sampling.guidance_scale": "--guidance",
    "continuation": "--continue",
    "continuation.source_id": "--continue",
    "continuation.seconds": "--continue-seconds",
    "data": "--continue",
    "output.format": "--format",
    "output.sample_rate_hz": "--sample-rate",
    "output.channels": "--channels",
    "output.target_lufs": "--loudness",
    "output.ceiling_dbtp": "--ceiling",
    "priority": "--priority",
    "page_size": "--limit",
    "prompt_contains": "--search",
    "text_contains": "--search",
}
"""Field of a request → what sets it on the command line."""


class CommandError(Exception):
    """A command can't do what it was asked for; the text says why and what to do."""

    def __init__(self, message: str, exit_status: int = FAILURE) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class Interrupted(Exception):
    """A signal ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted")
        self.exit_status = 128 + number


def explain(error: Exception) -> tuple[str, int]:
    """One line for the person at the shell, and the exit status."""
    match error:
        case CommandError():
            line, status = str(error), error.exit_status
        case InvalidArgument():
            line, status = f"{_argument(error.field or '')}: {error.problem}", BAD_INPUT
        case ServiceError():
            line, status = error.message, FAILURE
        case grpc.aio.AioRpcError():
            line, status = _refused(error)
        case ValidationError():
            line, status = _bad_settings(error), BAD_INPUT
        case _:
            line, status = f"unforeseen: {type(error).__name__}: {error}; --debug shows where", FAILURE
    return " ".join(line.split()), status


def _argument(field: str) -> str:
    """What sets the field on the command line, also one of a list; else the field."""
    return ARGUMENTS.get(field.rpartition("].")[2], field)


def _refused(error: grpc.aio.AioRpcError) -> tuple[str, int]:
    failure = read_error_details(error)
    if failure.violations:
        found = (f"{_argument(field)}: {problem}" for field, problem in failure.violations.items())
        return "; ".join(found), BAD_INPUT
    match failure.code:
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            line = "no answer within the time allowed: is the server overloaded? Try again"
        case grpc.StatusCode.UNAVAILABLE if not failure.reason:
            line = f"the connection broke: {failure.message}"
        case _:
            line = failure.message
    return line, BAD_INPUT if failure.code is grpc.StatusCode.INVALID_ARGUMENT else FAILURE


def _bad_settings(error: ValidationError) -> str:
    found = []
    for one in error.errors(include_url=False):
        name = "DGX_MUSIC_" + "_".join(str(part) for part in one["loc"]).upper()
        found.append(f"{name}={one['input']}: {one['msg']}")
    return "; ".join(found)
