"""Errors as the user sees them: one line that says what to do, and an exit status."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import grpc
import grpc.aio
from pydantic import ValidationError

from dgx_music.config_file import ConfigFileError
from dgx_music.error_status import read_error_details, status_of
from dgx_music.errors import InvalidArgument, ServiceError
from service_runtime.printable_text import make_printable, shorten_text
from service_runtime.settings import format_settings_error

FAILURE, BAD_INPUT = 1, 2
"""Exit statuses. An interrupted command exits with 128 + the number of the signal."""
TRY_AGAIN = 75
"""Exit status if the server can't be reached or is too busy: the same command may succeed later (EX_TEMPFAIL of
sysexits.h)."""
INVALID = "INVALID_ARGUMENT"
DEFAULT_CODES = {
    FAILURE: ("FAILED_PRECONDITION", "COMMAND_FAILED"),
    BAD_INPUT: (INVALID, "INVALID_OPTION"),
    TRY_AGAIN: ("UNAVAILABLE", "SERVER_UNREACHABLE"),
}
"""Exit status → code and reason of an error of the command itself."""
CONNECTION_LOST = "CONNECTION_LOST"
"""Reason of an error if a server was reached and then went away."""
LOST_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)
"""What gRPC itself reports of a connection that can't be made, that a stopping server closes, and that breaks."""
CONNECTION_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
"""With these, and without a status of the server, the call has not reached it or the connection is lost."""

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
    "conditioning.negative_prompt": "--negative",
    "conditioning.further_prompts": "--also",
    "conditioning.sections": "--section",
    "conditioning.melody": "--melody",
    "conditioning.melody.source_id": "--melody",
    "conditioning.melody.start_seconds": "--melody-start",
    "conditioning.style": "--style",
    "conditioning.style.source_id": "--style",
    "conditioning.style.start_seconds": "--style-start",
    "conditioning.style.text_guidance": "--text-guidance",
    "conditioning.adapters": "--adapter",
    "conditioning.lyrics": "--lyrics",
    "conditioning.steps": "--steps",
    "edit": "--model",
    "edit.source_id": "ID",
    "edit.added_seconds": "--left or --right",
    "edit.start_seconds": "--from",
    "edit.end_seconds": "--to",
    "loop": "--bars",
    "loop.bars": "--bars",
    "loop.bpm": "--tempo",
    "loop.beats_per_bar": "--beats",
    "variation_of": "ID",
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
    "weight": "--weight",
    "limits.calls_per_minute": "--calls-per-minute",
    "limits.max_queued": "--max-queued",
    "limits.minutes_per_day": "--minutes-per-day",
    "min_rating": "--min-rating",
    "min_bpm": "--min-bpm",
    "max_bpm": "--max-bpm",
    "key": "--key",
    "page_size": "--limit",
    "prompt_contains": "--search",
    "text_contains": "--search",
}
"""Field of a request → the argument or option that sets it."""


class CommandError(Exception):
    """The command cannot do what was requested; the message says why and what to do.

    `code` and `reason` are those of `Failure`; by default the exit status decides.
    """

    def __init__(self, message: str, exit_status: int = FAILURE, *, code: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.exit_status, self.code, self.reason = exit_status, code, reason


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as the user or a script sees it."""

    message: str
    exit_status: int = FAILURE
    code: str = "FAILED_PRECONDITION"
    """The name of the `grpc.StatusCode`, also for errors in which no server took part."""
    reason: str = "COMMAND_FAILED"
    """UPPER_SNAKE_CASE: the `ErrorInfo.reason` that the server gave, or one of docs/command-line.md."""
    field: str | None = None
    """The argument, option, setting or field of the request at fault."""
    retry_after_seconds: float | None = None
    """After this time the same command may succeed."""

    def to_json(self) -> str:
        """Returns the object that --json prints, on one line."""
        error = {
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "field": self.field,
            "retry_after_seconds": self.retry_after_seconds,
        }
        return json.dumps({"error": error}).replace("\x7f", "\\u007f")


def is_lost(error: grpc.aio.AioRpcError) -> bool:
    """Returns whether there is no connection to the server any more."""
    return error.code() in LOST_CODES and status_of(error) is None


def describe_error(error: Exception) -> Failure:
    """Returns what to tell the user, on one line that a terminal can show safely."""
    failure = _describe(error)
    return replace(failure, message=shorten_text(" ".join(make_printable(failure.message).split())))


def format_error(error: Exception) -> tuple[str, int]:
    """Returns the same as the line alone, and the exit status."""
    failure = describe_error(error)
    return failure.message, failure.exit_status


def _describe(error: Exception) -> Failure:
    match error:
        case CommandError():
            return _describe_command_error(error)
        case InvalidArgument():
            option = _option_for(error.field or "")
            return Failure(f"{option}: {error.problem}", BAD_INPUT, error.code, error.reason, option)
        case ServiceError():
            retry_after = error.retry_after_seconds
            status = FAILURE if retry_after is None else TRY_AGAIN
            return Failure(error.message, status, error.code, error.reason, error.field, retry_after)
        case grpc.aio.AioRpcError():
            return _describe_rpc_error(error)
        case ValidationError():
            location = error.errors()[0]["loc"]  # Empty for a fault of the config file.
            field = str(location[0]) if location else None
            return Failure(format_settings_error(error), BAD_INPUT, INVALID, "INVALID_SETTING", field)
        case ConfigFileError():
            return Failure(str(error), BAD_INPUT, INVALID, "INVALID_CONFIG_FILE", error.key)
        case OSError() if error.strerror:
            where = f"{error.filename}: " if error.filename else ""
            line = f"{where}{error.strerror}; use --debug to see what failed"
            return Failure(line, FAILURE, "INTERNAL", "SYSTEM_ERROR")
    line = f"unexpected {type(error).__name__}: {error}; use --debug to see where"
    return Failure(line, FAILURE, "INTERNAL", "UNEXPECTED_ERROR")


def _describe_command_error(error: CommandError) -> Failure:
    line, status = str(error), error.exit_status
    code, reason = DEFAULT_CODES.get(status, ("FAILED_PRECONDITION", "COMMAND_FAILED"))
    first, colon, _ = line.partition(": ")
    is_named = status == BAD_INPUT and colon and (first.startswith("--") or first.isupper())
    return Failure(line, status, error.code or code, error.reason or reason, first if is_named else None)


def _option_for(field: str) -> str:
    """Returns the option that sets the field, also for a field of a list item, or the field's own name."""
    of_condition = re.search(r"(conditioning\.\w+)\[\d+\]", field)
    return FIELD_OPTIONS.get(of_condition[1] if of_condition else field.rpartition("].")[2], field)


def _describe_rpc_error(error: grpc.aio.AioRpcError) -> Failure:
    details = read_error_details(error)
    line, field, status = details.message, None, FAILURE
    if details.violations:
        line = "; ".join(f"{_option_for(field)}: {problem}" for field, problem in details.violations.items())
        field = _option_for(next(iter(details.violations)))
    if details.violations or details.code is grpc.StatusCode.INVALID_ARGUMENT:
        status = BAD_INPUT
    elif details.retry_after_seconds is not None or (status_of(error) is None and details.code in CONNECTION_CODES):
        status = TRY_AGAIN
    reason = details.reason or (CONNECTION_LOST if status == TRY_AGAIN else "CALL_FAILED")
    return Failure(line, status, details.code.name, reason, field, details.retry_after_seconds)
