"""Structured logs, one event per line."""

from __future__ import annotations

import io
import logging
import sys
from functools import lru_cache
from typing import Any, TextIO

import structlog

from service_runtime.printable_text import make_printable

UUID_CHARACTERS = 36

_TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
"""Of JSON. The local variables of the functions would show prompts, tokens and passwords."""

_configuration = "info", "json"


def configure_logging(level: str, log_format: str, stream: TextIO | None = None, **fields: str) -> None:
    """Sends the logs of all code in the process to `stream` (default: standard error), one event per line.

    `log_format` is "json" or "console", which is text for people. Every event gets the `fields`.
    """
    global _configuration
    _configuration = level, log_format
    stream = stream or sys.stderr

    def add_fields(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**event, **fields}

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        *([add_fields] if fields else []),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.ExceptionRenderer(_TRACEBACKS), structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            _make_values_printable,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_write_traceback),
        ]
    )
    structlog.configure(
        # Filtered first: each call logs a debug event, and formatting one takes longer than sending a small response.
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # gRPC logs an error with a traceback for every client that leaves a stream early.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)


def _make_values_printable(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """For a terminal: values may be what a client has sent. JSON escapes control characters itself."""
    return {
        name: make_printable(value, keep_lines=True) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _write_traceback(stream: TextIO, error: structlog.typing.ExcInfo) -> None:
    written = io.StringIO()
    structlog.dev.plain_traceback(written, error)
    stream.write(make_printable(written.getvalue(), keep_lines=True))


def logging_configuration() -> tuple[str, str]:
    """Returns the level and the format of the last `configure_logging`, for a child process that logs alike."""
    return _configuration


def bind_generation_id(request: Any) -> None:
    """Adds the id of the generation that the request names to every log line of the call that this task serves."""
    field = _id_field(request.__class__)
    if field is not None and len(generation_id := getattr(request, field)) == UUID_CHARACTERS:
        structlog.contextvars.bind_contextvars(generation_id=generation_id)


@lru_cache(maxsize=1000)
def _id_field(request_type: type) -> str | None:
    """Returns the field of a message that holds the id of a generation. `id` may also be that of something else."""
    descriptor = getattr(request_type, "DESCRIPTOR", None)
    fields = () if descriptor is None else descriptor.fields_by_name
    return next((name for name in ("generation_id", "id") if name in fields), None)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Returns the logger of a module."""
    return structlog.stdlib.get_logger(name)
