"""Gives `captured_logs`, which collects what is logged while a block runs."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from service_runtime.observability.logging import configure_logging


@contextmanager
def captured_logs(log_format: str, **fields: str) -> Iterator[io.StringIO]:
    """The log of the block, from level "info" on, in the format "json" or "console". Each event gets the fields."""
    stream = io.StringIO()
    configure_logging("info", log_format, stream, **fields)
    try:
        yield stream
    finally:
        structlog.reset_defaults()
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
