"""Errors as the user sees them: one line that says what to do, and an exit status."""

from __future__ import annotations

import grpc
import grpc.aio
from pydantic import ValidationError

from dgx_music.error_status import read_error_details
from dgx_music.errors import InvalidArgument, ServiceError
from service_runtime.settings import format_settings_error

FAILURE, BAD_INPUT = 1, 2
"""Exit statuses. An interrupted command exits with 128 + the number of the signal."""

FIELD_OPTIONS = {
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
    "output.bit_rate_kbps": "--bitrate",
    "output.quality": "--quality",
    "output.channels": "--channels",
    "output.target_lufs": "--loudness",
    "output.ceiling_dbtp": "--ceiling",
    "output.publication.title": "--title",
    "output.publication.artist": "--artist",
    "output.publication.album": "--album",
    "title": "--title",
    "artist": "--artist",
    "album": "--album",
    "genre": "--genre",
    "cover": "--cover",
    "priority": "--priority",
    "rating": "RATING",
    "name": "NAME",
    "scope": "--scope",
    "expires_at": "--expires",
    "limits.calls_per_minute": "--calls-per-minute",
    "limits.max_queued": "--max-queued",
    "limits.minutes_per_day": "--minutes-per-day",
    "min_rating": "--min-rating",
    "page_size": "--limit",
    "prompt_contains": "--search",
    "text_contains": "--search",
}
"""Field of a request → the argument or option that sets it."""


class CommandError(Exception):
    """The command cannot do what was requested; the message says why and what to do."""

    def __init__(self, message: str, exit_status: int = FAILURE) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class Interrupted(Exception):
    """A signal ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted")
        self.exit_status = 128 + number


def format_error(error: Exception) -> tuple[str, int]:
    """Returns one line for the user, and the exit status."""
    match error:
        case CommandError():
            line, status = str(error), error.exit_status
        case InvalidArgument():
            line, status = f"{_option_for(error.field or '')}: {error.problem}", BAD_INPUT
        case ServiceError():
            line, status = error.message, FAILURE
        case grpc.aio.AioRpcError():
            line, status = _format_rpc_error(error)
        case ValidationError():
            line, status = format_settings_error(error), BAD_INPUT
        case OSError() if error.strerror:
            where = f"{error.filename}: " if error.filename else ""
            line, status = f"{where}{error.strerror}; use --debug to see what failed", FAILURE
        case _:
            line, status = f"unexpected {type(error).__name__}: {error}; use --debug to see where", FAILURE
    return " ".join(line.split()), status


def _option_for(field: str) -> str:
    """Returns the option that sets the field, also for a field of a list item, or the field's own name."""
    return FIELD_OPTIONS.get(field.rpartition("].")[2], field)


def _format_rpc_error(error: grpc.aio.AioRpcError) -> tuple[str, int]:
    failure = read_error_details(error)
    if failure.violations:
        problems = (f"{_option_for(field)}: {problem}" for field, problem in failure.violations.items())
        return "; ".join(problems), BAD_INPUT
    return failure.message, BAD_INPUT if failure.code is grpc.StatusCode.INVALID_ARGUMENT else FAILURE
