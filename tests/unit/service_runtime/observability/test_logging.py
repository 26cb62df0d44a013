"""What a log line holds, in both formats."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from service_runtime.observability.logging import get_logger, logging_configuration
from tests.support.log_capture import captured_logs


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_log_line_carries_context_and_respects_level(log_format: str) -> None:
    with captured_logs(log_format) as log, structlog.contextvars.bound_contextvars(generation_id="g1"):
        get_logger("test").info("event", frames=7)
        get_logger("test").debug("too fine")
        logging.getLogger("library").warning("from a library")
    lines = log.getvalue().splitlines()
    assert len(lines) == 2
    assert all("g1" in line for line in lines)


def test_fields_of_the_process_are_in_every_line_and_a_child_can_log_alike() -> None:
    with captured_logs("json", device="cuda:1") as log:
        get_logger("test").info("event")
        logging.getLogger("library").warning("from a library")
        assert logging_configuration() == ("info", "json")
    assert [json.loads(line)["device"] for line in log.getvalue().splitlines()] == ["cuda:1", "cuda:1"]
