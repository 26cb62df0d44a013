"""Where logs go in tests: to pytest, which shows those of a failed test, or to `captured_logs`.

structlog's own default prints to standard output, where a late log line of a server of an earlier test would join what
a later test reads as the output of a command.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from service_runtime.observability.logging import configure_logging


def log_to_pytest() -> None:
    """Sends all logs to the standard library's root logger, whose handlers are pytest's."""
    logging.basicConfig(handlers=[logging.NullHandler()], level=logging.WARNING, force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


@contextmanager
def captured_logs(log_format: str, **fields: str) -> Iterator[io.StringIO]:
    """The log of the block, from level "info" on, in the format "json" or "console". Each event gets the fields."""
    stream = io.StringIO()
    configure_logging("info", log_format, stream, **fields)
    try:
        yield stream
    finally:
        log_to_pytest()
